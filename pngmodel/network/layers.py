"""Layers shared by several networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COLOURS = 3
"""Number of input channels of the networks; grey images are expanded to three equal channels."""


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        x = nn.functional.layer_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.bias.to(x.dtype))
        return x.movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions, each after normalisation and GELU; the skip is projected if needed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ChannelNorm(inputs),
            nn.GELU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            ChannelNorm(outputs),
            nn.GELU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


def zeroed(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set the weights and bias of a layer to zero, so that its branch has no effect initially."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
