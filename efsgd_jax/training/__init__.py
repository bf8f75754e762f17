"""Trains a run from its configuration to its last step: devices, checkpoints, signals and progress."""
