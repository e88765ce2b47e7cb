"""Normalising flow of Flow-sRGB between noise and a white Gaussian latent, given clean image and reference.

From noise to latent: the gain layer subtracts the mean of the reference and divides by its std at the intensity of each
pixel, with a learned correction; a pixel unshuffle by 2 turns 3 channels into 12; each step is an invertible 1 x 1
convolution and an affine coupling, conditioned on the clean image and the reference. These are the linear flow and the
conditional affine coupling of the paper, where the conditions are clean image, camera and gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.naflow.layers import Kernel, Mixing, MixingRun, ScaledZeroConv
from pngmodel.baselines.reference_statistics import STRUCTURE, at_pixels, noise_levels, structure

COLOURS = 3
SQUEEZE = 2
_CHANNELS = COLOURS * SQUEEZE**2
_LARGEST_LOG_SCALE = 1.5  # of a coupling and of the gain correction; prevents overflow for rare inputs

Reference = Mapping[str, Tensor]
"""``mean`` and ``std`` at knots (B, 3, K), ``structure`` (B, 10); see :func:`reference_conditions`."""


class FlowSRGBConfig(BaseModel):
    """Sizes of the flow. The defaults train in minutes on a CPU; they are not those of the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(6, ge=1, description="Pairs of a 1 x 1 convolution and a conditional coupling.")
    hidden: int = Field(32, ge=4, description="Hidden channels of the network of a coupling.")
    features: int = Field(16, ge=4, description="Channels of the condition of all couplings.")


def reference_conditions(noise: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Return the conditions of reference noise (B, 3, H, W) with clean images of the same shape."""
    mean, std = noise_levels(noise, clean)
    standardised = (noise - at_pixels(mean, clean)) / at_pixels(std, clean)
    return {"mean": mean, "std": std, "structure": structure(standardised, std)}


class Condition(nn.Module):
    """Features (B, F, H/2, W/2) of the clean image, the std of the reference at its pixels, and its structure."""

    def __init__(self, config: FlowSRGBConfig) -> None:
        super().__init__()
        self.images = nn.Conv2d(2 * _CHANNELS, config.features, 1)
        self.numbers = nn.Linear(STRUCTURE, config.features)
        self.mix = nn.Conv2d(config.features, config.features, 1)

    def forward(self, clean: Tensor, std: Tensor, numbers: Tensor) -> Tensor:
        inputs = F.pixel_unshuffle(torch.cat([clean * 2 - 1, (std * 100).log()], dim=1), SQUEEZE)
        return self.mix(F.relu(self.images(inputs) + self.numbers(numbers)[:, :, None, None]))


class GainCorrection(nn.Module):
    """Logarithm of a factor on the std of the reference at each pixel: 1 x 1 convolutions, initially zero, bounded."""

    def __init__(self, config: FlowSRGBConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * COLOURS, config.features, 1)
        self.numbers = nn.Linear(STRUCTURE, config.features)
        self.last = ScaledZeroConv(config.features, COLOURS)

    def forward(self, clean: Tensor, std: Tensor, numbers: Tensor) -> Tensor:
        inputs = torch.cat([clean * 2 - 1, (std * 100).log()], dim=1)
        x = F.relu(self.first(inputs) + self.numbers(numbers)[:, :, None, None])
        return _bounded(self.last(x))


class Coupling(nn.Module):
    """Affine coupling: half of the channels are scaled and shifted by a convolutional network of the other half."""

    def __init__(self, config: FlowSRGBConfig) -> None:
        super().__init__()
        self.kept = _CHANNELS // 2
        self.network = nn.Sequential(
            nn.Conv2d(self.kept + config.features, config.hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.hidden, config.hidden, 3, padding=1),
            nn.ReLU(),
            ScaledZeroConv(config.hidden, 2 * (_CHANNELS - self.kept)),
        )

    def _scale(self, kept: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.network(torch.cat([kept, features], dim=1)).chunk(2, dim=1)
        return _bounded(log_scale), shift

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 12, h, w) to the same shape; return it and the log-determinant (B,)."""
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        log_scale, shift = self._scale(kept, features)
        return torch.cat([kept, (changed + shift) * log_scale.exp()], dim=1), log_scale.sum((1, 2, 3))

    def inverse(self, y: Tensor, features: Tensor) -> Tensor:
        """Invert :meth:`forward`."""
        kept, changed = y[:, : self.kept], y[:, self.kept :]
        log_scale, shift = self._scale(kept, features)
        return torch.cat([kept, changed * (-log_scale).exp() - shift], dim=1)


class FlowSRGB(nn.Module):
    """Bijection between noise (B, 3, H, W) in [-1, 1], with even sides, and latents (B, 12, H/2, W/2)."""

    def __init__(self, config: FlowSRGBConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FlowSRGBConfig()
        self.gain = GainCorrection(config)
        self.condition = Condition(config)
        self.mixing = nn.ModuleList(MixingRun(Mixing(_CHANNELS, normalised=False)) for _ in range(config.steps))
        self.couplings = nn.ModuleList(Coupling(config) for _ in range(config.steps))

    def _conditions(self, clean: Tensor, reference: Reference) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-scale at every pixel, and the features for the couplings."""
        mean, std = (at_pixels(reference[name], clean) for name in ("mean", "std"))
        numbers = reference["structure"]
        return mean, std.log() + self.gain(clean, std, numbers), self.condition(clean, std, numbers)

    def forward(self, noise: Tensor, clean: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
        """Return the latent (B, 12, H/2, W/2) and log|det dz/dn| (B,) of dequantised noise."""
        mean, log_scale, features = self._conditions(clean, reference)
        logdet = -log_scale.sum((1, 2, 3))
        x = F.pixel_unshuffle((noise - mean) * (-log_scale).exp(), SQUEEZE)
        for mixing, coupling in zip(self.mixing, self.couplings, strict=True):
            x, mixed = mixing(x)
            x, coupled = coupling(x, features)
            logdet = logdet + mixed + coupled
        return x, logdet

    def unmixing(self) -> list[Kernel]:
        """Return the inverses of the 1 x 1 convolutions, to be reused while the weights do not change."""
        return [run.unmixing() for run in self.mixing if isinstance(run, MixingRun)]

    def inverse(self, z: Tensor, clean: Tensor, reference: Reference, kernels: list[Kernel] | None = None) -> Tensor:
        """Return noise (B, 3, H, W) of latents; pass ``kernels`` from :meth:`unmixing` to save time."""
        mean, log_scale, features = self._conditions(clean, reference)
        kernels = self.unmixing() if kernels is None else kernels
        for mixing, coupling, kernel in zip(
            reversed(self.mixing), reversed(self.couplings), reversed(kernels), strict=True
        ):
            assert isinstance(mixing, MixingRun)
            assert isinstance(coupling, Coupling)
            z = mixing.inverse(coupling.inverse(z, features), kernel)
        return mean + F.pixel_shuffle(z, SQUEEZE) * log_scale.exp()

    def log_likelihood(self, noise: Tensor, clean: Tensor, reference: Reference) -> Tensor:
        """Return log p(noise | clean, reference) (B,) in nats, for images in [0, 1]."""
        z, logdet = self(noise, clean, reference)
        return logdet - 0.5 * (z.square() + math.log(2 * math.pi)).sum((1, 2, 3))


def _bounded(log_scale: Tensor) -> Tensor:
    return _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)
