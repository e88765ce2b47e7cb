"""The three networks of NeCA-W: GENet, NPNet and NCNet."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.adversarial import same_conv

_COLOURS = 3
_UNIT = 0.1  # noise of this size is about 1 to the networks
_LARGEST_LOG = 2.0  # a level is at most e^2 = 7.4 times the gain, or so much below it
_LARGEST = 0.5  # of what the correlator adds


class NeCAWConfig(BaseModel):
    """Sizes; the defaults learn something on a processor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gain_width: int = Field(24, ge=4, description="Channels of the gain estimator; published: 96.")
    gain_layers: int = Field(3, ge=2, description="Convolutions of the gain estimator before its mean; published: 4.")
    level_width: int = Field(32, ge=4, description="Channels of the noise level predictor; published: 96.")
    correlator_width: int = Field(16, ge=4, description="Channels of the correlator at full size; published: 64.")
    correlator_scales: int = Field(3, ge=1, le=5, description="Number of scales of the correlator; published: 4.")
    critic_width: int = Field(24, ge=4, description="Channels of the critic; published: 64.")
    critic_blocks: int = Field(3, ge=1, description="Residual blocks of the critic (published: another network).")

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of it."""
        return int(2 ** (self.correlator_scales - 1))


class GainEstimator(nn.Module):
    """GENet: a noisy image (B, 3, H, W) -> the std of its noise (B, 1), positive."""

    def __init__(self, config: NeCAWConfig) -> None:
        super().__init__()
        width = config.gain_width
        layers: list[nn.Module] = [same_conv(_COLOURS, width, 7), nn.ReLU()]
        for _ in range(config.gain_layers - 1):
            layers += [same_conv(width, width, 3), nn.ReLU()]
        self.body, self.last = nn.Sequential(*layers), nn.Linear(width, 1)

    def forward(self, noisy: Tensor) -> Tensor:
        return _UNIT * F.softplus(self.last(self.body(noisy).mean((2, 3))))


class LevelPredictor(nn.Module):
    """NPNet: clean image (B, 3, H, W) and gain (B, 1) -> the std of the noise at every value, positive.

    A 7 x 7 layer and three 1 x 1 layers, each scaled by a function of the gain. It starts at the gain itself.
    """

    def __init__(self, config: NeCAWConfig) -> None:
        super().__init__()
        width = config.level_width
        self.first = same_conv(_COLOURS, width, 7)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.scales = nn.ModuleList(nn.Linear(1, width) for _ in range(3))
        self.last = nn.Conv2d(width, _COLOURS, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, clean: Tensor, gain: Tensor) -> Tensor:
        x, told = self.first(clean * 2 - 1), (gain / _UNIT).log()
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = F.leaky_relu(layer(x) * (1 + scale(told))[:, :, None, None], 0.01)
        return gain[:, :, None, None] * (_LARGEST_LOG * torch.tanh(self.last(x) / _LARGEST_LOG)).exp()


class Correlator(nn.Module):
    """NCNet: uncorrelated noise (B, 3, H, W) -> what makes it correlated, to be added; a U-Net without the image."""

    def __init__(self, config: NeCAWConfig) -> None:
        super().__init__()
        widths = [config.correlator_width * 2**k for k in range(config.correlator_scales)]
        self.first = _block(_COLOURS, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU(), _block(b, b)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.join = nn.ModuleList(_block(2 * a, a) for a in widths[:-1])
        self.last = nn.Conv2d(widths[0], _COLOURS, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, noise: Tensor) -> Tensor:
        kept = [self.first(noise / _UNIT)]
        for down in self.down:
            kept.append(down(kept[-1]))
        x = kept.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            wider = up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = join(torch.cat([wider, kept.pop()], dim=1))
        return _LARGEST * torch.tanh(self.last(x) * (_UNIT / _LARGEST))


class NeCAW(nn.Module):
    """Noise (B, 3, H, W) of clean images, a gain and white numbers; sides are multiples of ``config.multiple``."""

    def __init__(self, config: NeCAWConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NeCAWConfig()
        self.gain = GainEstimator(config)
        self.level = LevelPredictor(config)
        self.correlator = Correlator(config)

    def forward(self, clean: Tensor, gain: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
        """Correlated noise, and the level map (B, 3, H, W) that its uncorrelated part was drawn with."""
        level = self.level(clean, gain)
        noise = level * white
        return noise + self.correlator(noise), level


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
    )
