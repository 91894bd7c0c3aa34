"""PEFT adapters: where they stand on disk, stacked, and computed in one pass."""
