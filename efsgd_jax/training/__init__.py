"""Training: from a configuration to the last step, with checkpoints, devices, signals and progress."""
