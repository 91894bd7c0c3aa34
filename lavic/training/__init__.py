"""What happens around the steps: checkpoints, the run's files, guards, interruption."""
