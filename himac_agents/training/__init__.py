"""A training run: demonstrations, learning, checkpoints, the result."""
