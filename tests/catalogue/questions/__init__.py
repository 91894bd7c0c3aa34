"""Published questions."""
