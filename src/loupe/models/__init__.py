"""Networks: plain `nn.Module`s that know nothing of training, and how they are stored and applied."""
