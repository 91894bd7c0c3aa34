"""What a run costs: parameters, FLOP, bytes, GPUs."""
