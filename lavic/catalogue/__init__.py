"""What lies on disk: items, descriptions, conversations, images. Knows nothing of torch."""
