"""Training on a rented machine: launched, watched, resumed, paid for and ended. Knows nothing of images or networks."""
