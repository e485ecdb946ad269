"""Residual Dense Network: Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018.

    x [N, 3, h, w] in [0, 1]
      shallow features   SFE1: 3x3 conv -> F_-1 [N, G0, h, w];  SFE2: 3x3 conv -> F_0
      D dense blocks     F_d = RDB_d(F_d-1)
      global fusion      F_GF = 3x3 conv(1x1 conv([F_1, ..., F_D]));  F_DF = F_-1 + F_GF
      up-sampling        3x3 conv to G0 * scale^2 channels, pixel shuffle, 3x3 conv
    y [N, 3, h * scale, w * scale], about [0, 1], not clipped

The names D, C, G, G0 are the paper's. Everything is convolution, so any height and width will do.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Residual = Literal["none", "nearest", "bicubic"]


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps height and width (zero padding), the paper's default."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


class ResidualDenseBlock(nn.Module):
    """RDB (figure 3): C convolutions, each seeing all before it; local feature fusion; local residual learning."""

    def __init__(self, C: int, G: int, G0: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv3x3(G0 + c * G, G) for c in range(C))
        self.fusion = nn.Conv2d(G0 + C * G, G0, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, G0, h, w] -> [N, G0, h, w]."""
        features = x
        for layer in self.layers:
            features = torch.cat([features, F.relu(layer(features))], dim=1)  # [N, G0 + (c + 1) * G, h, w]
        fused: Tensor = self.fusion(features)
        return x + fused


class RDN(nn.Module):
    """The network.

    Args:
        D: residual dense blocks.
        C: convolutions in each block.
        G: growth rate, channels that each of these adds.
        G0: channels between blocks.
        scale: size factor, a whole number from 2.
        residual: what the network's output is added to: `none` (the paper: it predicts the whole picture), or the
            input enlarged by `nearest` or `bicubic` (PyTorch's, a = -0.75), so that it predicts only what
            enlargement lacks. The last layer then starts at zero: the untrained network is the plain enlargement.

    Parameters for scale 2: 22,123,395 with D=16 C=8 G=64 G0=64; 5,616,515 with D=20 C=6 G=32 G0=64.
    """

    def __init__(
        self, D: int = 16, C: int = 8, G: int = 64, G0: int = 64, scale: int = 2, residual: Residual = "none"
    ) -> None:
        super().__init__()
        self.scale = scale
        self.residual = residual
        self.shallow_1 = conv3x3(3, G0)
        self.shallow_2 = conv3x3(G0, G0)
        self.blocks = nn.ModuleList(ResidualDenseBlock(C, G, G0) for _ in range(D))
        self.global_fusion = nn.Sequential(nn.Conv2d(D * G0, G0, kernel_size=1), conv3x3(G0, G0))
        self.upsample = nn.Sequential(conv3x3(G0, G0 * scale**2), nn.PixelShuffle(scale))
        self.output = conv3x3(G0, 3)
        if residual != "none":
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]  # conv3x3 always has a bias

    def begin_as(self, start: RDN) -> None:
        """Compute what `start` computes, which differs at most in having fewer blocks.

        Blocks that it lacks come behind its own. Their fusion is zero, so they pass on what they get, and the global
        fusion gives them no weight; both learn. Chen et al., "Net2Net", ICLR 2016.

        Raises:
            RuntimeError: it has more blocks, or differs in something else.
        """
        weights = {**self.state_dict(), **start.state_dict()}
        joint = "global_fusion.0.weight"  # [G0, D * G0, 1, 1]
        more = len(self.blocks) - len(start.blocks)
        weights[joint] = F.pad(weights[joint], (0, 0, 0, 0, 0, max(0, more) * len(weights[joint])))
        for block in range(len(start.blocks), len(self.blocks)):
            for name in (f"blocks.{block}.fusion.weight", f"blocks.{block}.fusion.bias"):
                weights[name] = torch.zeros_like(weights[name])
        self.load_state_dict(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge float [N, 3, h, w] in [0, 1] to float [N, 3, h * scale, w * scale], about [0, 1]."""
        shallow = self.shallow_1(x)
        features = self.shallow_2(shallow)
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        fused = shallow + self.global_fusion(torch.cat(outputs, dim=1))  # [N, G0, h, w]
        details = self.upsample(fused)
        with torch.autocast(x.device.type, enabled=False):  # 8 bits of mantissa do not hold a picture's 256 levels
            y: Tensor = self.output(details.to(self.output.weight.dtype))
            if self.residual == "none":
                return y
            return y + F.interpolate(x, scale_factor=self.scale, mode=self.residual)
