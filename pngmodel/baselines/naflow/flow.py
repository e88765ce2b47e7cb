"""The flow of NAFlow: from a noisy image, given its clean image, to a latent with one Gaussian per camera setting.

Facts and where they are from: the paper for the idea (one flow, a Gaussian for every camera and ISO, sampling from a
mixture of them), the authors' released configuration for every size below. Known differences from the release, none of
which changes the function that can be learned or its cost:

- scale and shift are the halves of a coupling's output there interleaved channels;
- the release's convolution after the last level and its identity matrix are never used, and are left out;
- the constant of the dequantisation is left out of the log-likelihood.
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
SQUEEZE = 2  # side of the square of pixels that becomes channels at a level's start

_SIDD_ISO = {
    "G4": (100, 200, 400, 800),
    "GP": (50, 100, 200, 400, 800, 1600, 3200, 6400, 10000),
    "IP": (100, 200, 320, 400, 500, 640, 800, 1000, 1600, 2000),
    "N6": (100, 400, 800, 1600, 3200),
    "S6": (100, 200, 400, 800, 1600, 3200),
}
SIDD_SETTINGS = tuple(f"{camera}_{iso:05}" for camera, isos in _SIDD_ISO.items() for iso in isos)
"""The 34 cameras and ISO values of SIDD-Medium that the published model tells apart."""


class NAFlowConfig(BaseModel):
    """Sizes; the defaults are the released ones.

    With them the flow has 1,053,131 trainable parameters and works 4.98 GMAC per image of 256 x 256. The release's
    configuration makes 24,960 parameters more that it never uses, and 36,864 that are not trained: 1.11 M in all, as
    counted from its text. A number printed in the paper was not found.
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
        """Image side over latent side."""
        return SQUEEZE**self.levels

    @property
    def latent_channels(self) -> int:
        """Channels of the latent: no level splits any off."""
        return COLOURS * self.downsampling**2


class ConditionEncoder(nn.Module):
    """Features of the clean image, one map per level: 1 x 1 convolutions and pixel-unshuffles, nothing else."""

    def __init__(self, config: NAFlowConfig) -> None:
        super().__init__()
        self.stem = nn.Conv2d(COLOURS, config.features, 1)
        self.down = nn.ModuleList(
            nn.Conv2d(config.features, config.features // SQUEEZE**2, 1) for _ in range(config.levels)
        )

    def forward(self, clean: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> levels 1, 2, ..: (B, features, H/2, W/2), (B, features, H/4, W/4), .."""
        x = self.stem(clean)
        found = []
        for down in self.down:
            x = F.pixel_unshuffle(down(x), SQUEEZE)
            found.append(x)
        return found


class Level(nn.Module):
    """Squeeze, transitions, flow steps: (B, C, H, W) <-> (B, 4 C, H/2, W/2)."""

    def __init__(self, channels: int, config: NAFlowConfig) -> None:
        super().__init__()
        # The transitions and the mixing of the first step follow one another.
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
        """Undo :meth:`forward`; ``kernels`` of the runs in forward order."""
        for mixing, coupling, kernel in zip(
            reversed(self.mixing), reversed(self.couplings), reversed(kernels), strict=True
        ):
            assert isinstance(mixing, MixingRun)
            assert isinstance(coupling, ConditionalCoupling)
            z = mixing.inverse(coupling.inverse(z, features), kernel)
        return F.pixel_shuffle(z, SQUEEZE)


class NAFlow(nn.Module):
    """Noisy image y (B, 3, H, W) in [0, 1] <-> latent z (B, 192, H/8, W/8), given the clean image.

    p(y | clean, setting) = N(z; mean, std^2) |dz/dy|, with a mean and a std per setting and channel, the same at every
    place.
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
        """Latent (B, 192, H/8, W/8) and log|det dz/dy| (B,) of noisy images in [0, 1], which are best dequantised."""
        x, logdet = self.colour(noisy)
        logdet = logdet.expand(x.shape[0])
        for level, features in zip(self.levels, self.encoder(clean), strict=True):
            x, added = level(x, features)
            logdet = logdet + added
        return x, logdet

    def unmixing(self) -> list[list[Kernel]]:
        """The inverses of all runs of linear layers: worth keeping while the weights stay the same."""
        runs: list[list[MixingRun]] = [[self.colour]]
        for level in self.levels:
            assert isinstance(level, Level)
            runs.append([run for run in level.mixing if isinstance(run, MixingRun)])
        return [[run.unmixing() for run in level_runs] for level_runs in runs]

    def inverse(self, z: Tensor, clean: Tensor, kernels: list[list[Kernel]] | None = None) -> Tensor:
        """Noisy images (B, 3, H, W) of latents, not clamped; ``kernels`` from :meth:`unmixing` save time."""
        kernels = self.unmixing() if kernels is None else kernels
        features = self.encoder(clean)
        for k in reversed(range(len(self.levels))):
            level = self.levels[k]
            assert isinstance(level, Level)
            z = level.inverse(z, features[k], kernels[k + 1])
        return self.colour.inverse(z, kernels[0][0])

    def setting_log_likelihoods(self, z: Tensor) -> Tensor:
        """log N(z; mean, std^2) under every setting, (B, settings), in nats: sums over channels and places."""
        wide = z.flatten(2).double()
        locations = wide.shape[2]
        total, squares = wide.sum(2)[:, None], wide.square().sum(2)[:, None]  # (B, 1, C)
        mean, variance = self.mean.double(), self.std.double().square()
        distance = (squares - 2 * mean * total + locations * mean.square()) / variance
        normaliser = locations * (variance.log() + math.log(2 * math.pi))
        return -0.5 * (distance + normaliser).sum(2).to(z.dtype)

    def log_likelihood(self, noisy: Tensor, clean: Tensor, setting: Tensor) -> Tensor:
        """log p(noisy | clean, setting) (B,) in nats; ``setting`` (B,) indexes ``config.settings``. To be maximised."""
        z, logdet = self(noisy, clean)
        return labelled(self.setting_log_likelihoods(z), setting) + logdet

    def noise_aware_prior(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a reference's latents: weights of the settings (B, settings), and the mean and std (B, C) they mix to.

        Noise-aware sampling: softmax of the log-likelihoods per place of the latent, which keeps neighbouring
        settings in the mixture. Parameters are averaged, not densities, as the release does.
        """
        weights = (self.setting_log_likelihoods(z) / (z.shape[-2] * z.shape[-1])).softmax(dim=1)
        return weights, weights @ self.mean, weights @ self.std


def labelled(log_likelihoods: Tensor, setting: Tensor) -> Tensor:
    """Of log-likelihoods under every setting (B, settings), the one of ``setting`` (B,).

    Where that is unknown (-1), the likelihood under the mixture of all settings with equal weights.
    """
    known = log_likelihoods.gather(1, setting.clamp(min=0)[:, None])[:, 0]
    mixture = log_likelihoods.logsumexp(1) - math.log(log_likelihoods.shape[1])
    return torch.where(setting >= 0, known, mixture)


def dequantised(image: Tensor, uniform: Tensor) -> Tensor:
    """8-bit levels in [0, 1] spread over their rounding interval by ``uniform`` in [0, 1), of the same shape."""
    return image + (uniform - 0.5) / 256


def parameter_count(config: NAFlowConfig) -> int:
    """Trainable parameters by formula, layer by layer: what the module is checked against."""
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
