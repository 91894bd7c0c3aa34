"""What is learned: one LightningModule a module."""
