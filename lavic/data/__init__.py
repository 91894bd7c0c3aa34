"""From files to batches: sample tables, step plans, data sets and Lightning data modules."""
