"""Training: losses, learning-rate schedule, weight averaging and the run itself."""
