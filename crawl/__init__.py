"""`python -m crawl`: fill the image folders from the catalogue's metadata files. Knows nothing of torch."""
