"""LLaVA-v1.6: loading, adapters, visual tokens, and the loss over target tokens."""
