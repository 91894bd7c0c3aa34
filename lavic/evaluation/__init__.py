"""Numbers of what a model answered, with intervals."""
