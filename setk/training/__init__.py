"""Training: config, data, losses and the loop."""
