"""Any picture twice the size: what a user of a model calls. Needs no PyTorch, and nothing of training."""
