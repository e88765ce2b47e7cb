"""The three networks of NeCA-W: GENet, NPNet and NCNet."""

from __future__ import annotations

from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.adversarial import same_conv

_COLOURS = 3
_UNIT = 0.1  # scale of the noise for the networks
_LARGEST_LOG = 2.0  # the noise level is within a factor e^2 = 7.4 of the gain
_LARGEST = 0.5  # limit of the output of the correlator


class NeCAWConfig(BaseModel):
    """Sizes of the networks. The defaults can be trained on a CPU."""

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
        """Image sides must be multiples of this number."""
        return int(2 ** (self.correlator_scales - 1))


class GainEstimator(nn.Module):
    """GENet: estimates the std of the noise (B, 1), positive, of noisy images (B, 3, H, W)."""

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
    """NPNet: predicts the std of the noise at every value, positive, from clean images (B, 3, H, W) and gain (B, 1).

    A 7 x 7 convolution and three 1 x 1 convolutions, each scaled by a function of the gain. Initially it returns the
    gain.
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
        x, log_gain = self.first(clean * 2 - 1), (gain / _UNIT).log()
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = F.leaky_relu(layer(x) * (1 + scale(log_gain))[:, :, None, None], 0.01)
        return gain[:, :, None, None] * (_LARGEST_LOG * torch.tanh(self.last(x) / _LARGEST_LOG)).exp()


class Correlator(nn.Module):
    """NCNet: a U-Net that maps uncorrelated noise (B, 3, H, W) to a residual which makes it correlated."""

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
        skips = [self.first(noise / _UNIT)]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            upsampled = up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = join(torch.cat([upsampled, skips.pop()], dim=1))
        return _LARGEST * torch.tanh(self.last(x) * (_UNIT / _LARGEST))


class NeCAW(nn.Module):
    """Generates noise (B, 3, H, W) from clean images, gain and white noise; sides divisible by ``config.multiple``."""

    def __init__(self, config: NeCAWConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NeCAWConfig()
        self.gain = GainEstimator(config)
        self.level = LevelPredictor(config)
        self.correlator = Correlator(config)

    def forward(self, clean: Tensor, gain: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
        """Return correlated noise, and the std (B, 3, H, W) of its uncorrelated part."""
        level = self.level(clean, gain)
        noise = level * white
        return noise + self.correlator(noise), level


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
    )
