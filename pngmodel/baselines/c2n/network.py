"""Generator network of C2N: noise of a clean image from random numbers of the image and of each pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.adversarial import ResidualBlock, same_conv

_COLOURS = 3
_UNIT = 0.05  # scale of the noise; keeps the generator from learning faster than the critic
_LARGEST = 0.5  # limit of the noise; prevents divergence while the critic is untrained
_SMALLEST_STD = 1e-6


class C2NConfig(BaseModel):
    """Sizes of the networks. The defaults can be trained on a CPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(16, ge=4, description="Channels of a branch; published: 64.")
    extractor: int = Field(
        2, ge=1, description="Residual blocks of the feature extractor of the clean image; published: 5."
    )
    independent: int = Field(2, ge=1, description="Residual blocks of each signal-independent branch; published: 3.")
    dependent: int = Field(1, ge=1, description="Residual blocks of each signal-dependent branch; published: 2.")
    randomness: int = Field(32, ge=1, description="Random numbers per image; published: 32.")
    critic_width: int = Field(24, ge=4, description="Channels of the critic; published: 64.")
    critic_blocks: int = Field(3, ge=1, description="Residual blocks of the critic; published: 6.")


class Randomness(NamedTuple):
    """Random numbers of a sample."""

    image: Tensor
    """Standard normal, (B, randomness)."""
    dependent: Tensor
    """Standard normal, (B, width, H, W)."""
    independent: Tensor
    """Uniform in [0, 1), (B, width, H, W)."""


class Branches(nn.Module):
    """1 x 1 convolution, then parallel residual blocks of 1 x 1 (pixel-wise) and 3 x 3 (correlated) convolutions."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.pixel, self.neighbours = (
            nn.Sequential(*(ResidualBlock(width, kernel, bias=False) for _ in range(blocks))) for kernel in (1, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.pixel(x) + self.neighbours(x)


class C2N(nn.Module):
    """Generates noise (B, 3, H, W) from clean images (B, 3, H, W) in [0, 1] and :class:`Randomness`."""

    def __init__(self, config: C2NConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or C2NConfig()
        width = config.width
        self.read = nn.Sequential(same_conv(_COLOURS, width, 3), nn.PReLU(), same_conv(width, 2 * width, 3))
        self.merge = nn.Sequential(same_conv(2 * width + config.randomness, 2 * width, 3), nn.PReLU())
        self.extract = nn.Sequential(*(ResidualBlock(2 * width, 3) for _ in range(config.extractor)))
        self.dependent = Branches(width, config.dependent)
        self.independent = Branches(width, config.independent)
        self.last = nn.Conv2d(width, _COLOURS, 1)

    def forward(self, clean: Tensor, randomness: Randomness) -> Tensor:
        image = randomness.image[:, :, None, None].expand(-1, -1, *clean.shape[-2:])
        features = self.extract(self.merge(torch.cat([self.read(clean), image], dim=1)))
        mean, std = features.chunk(2, dim=1)
        signal = mean + (F.relu(std) + _SMALLEST_STD) * randomness.dependent
        noise = _UNIT * self.last(self.dependent(signal) + self.independent(randomness.independent))
        return _LARGEST * torch.tanh(noise / _LARGEST)
