"""Small real networks for tests."""

import torch

from loupe.models.rdn import RDN
from loupe.models.weights import build_network

CONFIG = {"name": "rdn", "D": 2, "C": 2, "G": 8, "G0": 8, "scale": 2, "residual": "bicubic"}


def network(seed: int = 0, **changes: object) -> RDN:
    """An RDN with random weights in every layer, in evaluation mode."""
    torch.manual_seed(seed)
    made = build_network(CONFIG | changes).eval()
    with torch.no_grad():
        for parameter in made.output.parameters():  # zeros, where the residual is bicubic
            parameter.normal_(0, 0.05 if parameter.ndim > 1 else 0.01)
    return made
