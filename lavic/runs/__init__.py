"""What runs left behind, read without torch."""
