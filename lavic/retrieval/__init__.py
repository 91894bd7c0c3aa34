"""Candidates for a conversation: scorers over the catalogue."""
