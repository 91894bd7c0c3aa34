"""From samples to micro-batches: padding, step plans, loaders, controls."""
