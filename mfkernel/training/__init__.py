"""Fits: start values, the training loop, validation and checkpoints."""
