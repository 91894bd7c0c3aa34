"""Questions about images as the benchmarks publish them: their files, what counts as right, what is trained."""
