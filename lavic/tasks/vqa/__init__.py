"""Visual question answering: a question about an image in, a short answer out, judged by exact match."""
