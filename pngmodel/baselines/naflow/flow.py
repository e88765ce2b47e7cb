"""Normalising flow of NAFlow between noisy images, given the clean image, and latents with one Gaussian per setting.

The method (one flow, a Gaussian per camera and ISO, sampling from a mixture of them) follows the paper, and all sizes
follow the authors' released configuration. Differences from the release, which do not affect capacity or cost:

- scale and shift of a coupling are the halves of its output channels instead of interleaved channels;
- the convolution after the last level and the identity matrix of the release are never used and are omitted;
- the constant of the dequantisation is omitted from the log-likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.naflow.layers import ConditionalCoupling, Kernel, Mixing, MixingRun

COLOURS = 3
SQUEEZE = 2  # side of the pixel unshuffle at the start of a level

_SIDD_ISO = {
    "G4": (100, 200, 400, 800),
    "GP": (50, 100, 200, 400, 800, 1600, 3200, 6400, 10000),
    "IP": (100, 200, 320, 400, 500, 640, 800, 1000, 1600, 2000),
    "N6": (100, 400, 800, 1600, 3200),
    "S6": (100, 200, 400, 800, 1600, 3200),
}
SIDD_SETTINGS = tuple(f"{camera}_{iso:05}" for camera, isos in _SIDD_ISO.items() for iso in isos)
"""The 34 camera settings (camera and ISO) of SIDD-Medium, which are the classes of the published model."""


class NAFlowConfig(BaseModel):
    """Sizes of the flow; the defaults are the released ones.

    With the defaults the flow has 1,053,131 trainable parameters and requires 4.98 GMAC per image of 256 x 256 pixels.
    The release has 24,960 more parameters that are never used, and 36,864 that are not trained, 1.11 M in total.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: tuple[str, ...] = Field(
        SIDD_SETTINGS,
        min_length=1,
        description="Cameras with ISO values, each with its own Gaussian; default: those of the stores of the "
        "configuration.",
    )
    levels: int = Field(3, ge=1, description="Number of squeezes of the flow; each halves the image side.")
    transitions: int = Field(2, ge=0, description="Mixing layers before the steps of a level (SRFlow, section 3.3).")
    steps: int = Field(2, ge=1, description="Flow steps per level: mixing, injector and coupling.")
    features: int = Field(128, ge=4, multiple_of=4, description="Channels of the features of the clean image.")
    hidden: int = Field(64, ge=1, description="Hidden channels of the network of a coupling.")
    eps: float = Field(1e-3, gt=0, description="Smallest scale of a coupling.")
    condition_noise: float = Field(
        3 / 255,
        ge=0,
        description="Standard deviation of white noise on the clean image that conditions the flow, also for sampling.",
    )

    @property
    def downsampling(self) -> int:
        """Ratio of image side and latent side."""
        return SQUEEZE**self.levels

    @property
    def latent_channels(self) -> int:
        """Number of channels of the latent; levels do not split off channels."""
        return COLOURS * self.downsampling**2


class ConditionEncoder(nn.Module):
    """Features of the clean image per level, from 1 x 1 convolutions and pixel unshuffles."""

    def __init__(self, config: NAFlowConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(COLOURS, config.features, 1)
        self.down = nn.ModuleList(
            nn.Conv2d(config.features, config.features // SQUEEZE**2, 1) for _ in range(config.levels)
        )

    def forward(self, clean: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the features of levels 1, 2, ...: (B, F, H/2, W/2), (B, F, H/4, W/4), ..."""
        x = self.stem(clean)
        found = []
        for down in self.down:
            x = F.pixel_unshuffle(down(x), SQUEEZE)
            found.append(x)
        return found


class Level(nn.Module):
    """Squeeze, transitions and flow steps: bijection between (B, C, H, W) and (B, 4 C, H/2, W/2)."""

    def __init__(self, channels: int, config: NAFlowConfig) -> None:
        super().__init__()
        # The transitions are directly followed by the mixing of the first step.
        counts = (config.transitions + 1, *[1] * (config.steps - 1))
        self.mixing = nn.ModuleList(MixingRun(*(Mixing(channels) for _ in range(count))) for count in counts)
        self.couplings = nn.ModuleList(
            ConditionalCoupling(channels, config.features, config.hidden, config.eps) for _ in counts
        )

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        x = F.pixel_unshuffle(x, SQUEEZE)
        logdet = x.new_zeros(x.shape[0])
        for mixing, coupling in zip(self.mixing, self.couplings, strict=True):
            x, mixed = mixing(x)
            x, coupled = coupling(x, features)
            logdet = logdet + mixed + coupled
        return x, logdet

    def inverse(self, z: Tensor, features: Tensor, kernels: Sequence[Kernel]) -> Tensor:
        """Invert :meth:`forward`; ``kernels`` are in forward order."""
        for mixing, coupling, kernel in zip(
            reversed(self.mixing), reversed(self.couplings), reversed(kernels), strict=True
        ):
            assert isinstance(mixing, MixingRun)
            assert isinstance(coupling, ConditionalCoupling)
            z = mixing.inverse(coupling.inverse(z, features), kernel)
        return F.pixel_shuffle(z, SQUEEZE)


class NAFlow(nn.Module):
    """Bijection between noisy images y (B, 3, H, W) in [0, 1] and latents z (B, 192, H/8, W/8), given the clean image.

    p(y | clean, setting) = N(z; mean, std^2) |dz/dy|, with mean and std per setting and channel for all positions.
    """

    def __init__(self, config: NAFlowConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NAFlowConfig()
        self.encoder = ConditionEncoder(config)
        self.colour = MixingRun(
            Mixing(COLOURS, normalised=False), *(Mixing(COLOURS) for _ in range(config.transitions))
        )
        self.levels = nn.ModuleList(
            Level(COLOURS * SQUEEZE ** (2 * level), config) for level in range(1, config.levels + 1)
        )
        shape = (len(config.settings), config.latent_channels)
        self.mean = nn.Parameter(torch.zeros(shape))
        self.std = nn.Parameter(torch.ones(shape))

    def forward(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent (B, 192, H/8, W/8) and log|det dz/dy| (B,) of dequantised noisy images in [0, 1]."""
        x, logdet = self.colour(noisy)
        logdet = logdet.expand(x.shape[0])
        for level, features in zip(self.levels, self.encoder(clean), strict=True):
            x, added = level(x, features)
            logdet = logdet + added
        return x, logdet

    def unmixing(self) -> list[list[Kernel]]:
        """Return the inverses of all runs of linear layers, to be reused while the weights do not change."""
        runs: list[list[MixingRun]] = [[self.colour]]
        for level in self.levels:
            assert isinstance(level, Level)
            runs.append([run for run in level.mixing if isinstance(run, MixingRun)])
        return [[run.unmixing() for run in level_runs] for level_runs in runs]

    def inverse(self, z: Tensor, clean: Tensor, kernels: list[list[Kernel]] | None = None) -> Tensor:
        """Return noisy images (B, 3, H, W) of latents, not clamped; ``kernels`` from :meth:`unmixing` save time."""
        kernels = self.unmixing() if kernels is None else kernels
        features = self.encoder(clean)
        for k in reversed(range(len(self.levels))):
            level = self.levels[k]
            assert isinstance(level, Level)
            z = level.inverse(z, features[k], kernels[k + 1])
        return self.colour.inverse(z, kernels[0][0])

    def setting_log_likelihoods(self, z: Tensor) -> Tensor:
        """Return log N(z; mean, std^2) for every setting, (B, settings), in nats: sums over channels and positions."""
        wide = z.flatten(2).double()
        positions = wide.shape[2]
        total, squares = wide.sum(2)[:, None], wide.square().sum(2)[:, None]  # (B, 1, C)
        mean, variance = self.mean.double(), self.std.double().square()
        distance = (squares - 2 * mean * total + positions * mean.square()) / variance
        normaliser = positions * (variance.log() + math.log(2 * math.pi))
        return -0.5 * (distance + normaliser).sum(2).to(z.dtype)

    def log_likelihood(self, noisy: Tensor, clean: Tensor, setting: Tensor) -> Tensor:
        """Return log p(noisy | clean, setting) (B,) in nats; ``setting`` (B,) indexes ``config.settings``."""
        z, logdet = self(noisy, clean)
        return labelled(self.setting_log_likelihoods(z), setting) + logdet

    def noise_aware_prior(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the prior for noise-aware sampling from the latents of references.

        Returns:
            Weights of the settings (B, settings), i.e. the softmax of the log-likelihoods per position; and the mean
            and std (B, C), averaged with these weights. As in the release, parameters are averaged, not densities.
        """
        weights = (self.setting_log_likelihoods(z) / (z.shape[-2] * z.shape[-1])).softmax(dim=1)
        return weights, weights @ self.mean, weights @ self.std


def labelled(log_likelihoods: Tensor, setting: Tensor) -> Tensor:
    """Select the log-likelihood of ``setting`` (B,) from those of all settings (B, settings).

    For unknown settings (-1), return that of the mixture of all settings with equal weights.
    """
    known = log_likelihoods.gather(1, setting.clamp(min=0)[:, None])[:, 0]
    mixture = log_likelihoods.logsumexp(1) - math.log(log_likelihoods.shape[1])
    return torch.where(setting >= 0, known, mixture)


def dequantised(image: Tensor, uniform: Tensor) -> Tensor:
    """Dequantise an 8-bit image in [0, 1] with ``uniform`` in [0, 1) of the same shape."""
    return image + (uniform - 0.5) / 256


def parameter_count(config: NAFlowConfig) -> int:
    """Return the number of trainable parameters by formula, as a check of the module."""
    f, h = config.features, config.hidden

    def network(inputs: int, outputs: int) -> int:
        first, residual = inputs * h + 2 * h, 9 * h * h + h + h * h + 2 * h
        return first + residual + h * 2 * outputs + 2 * 2 * outputs

    encoder = COLOURS * f + f + config.levels * (f * f // 4 + f // 4)
    sizes = [COLOURS * 4**level for level in range(config.levels + 1)]

    def mixing(c: int) -> int:
        return 2 * c + 2 * c * c + c

    total = encoder + (config.transitions + 1) * mixing(COLOURS) - 2 * COLOURS
    for _, c in pairwise(sizes):
        coupling = network(f, c) + network(c // 2 + f, c - c // 2)
        total += (config.transitions + config.steps) * mixing(c) + config.steps * coupling
    return total + 2 * len(config.settings) * config.latent_channels
