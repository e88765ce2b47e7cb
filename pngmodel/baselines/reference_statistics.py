"""Noise statistics of a reference that condition trained baselines, in place of the camera and ISO of their papers."""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS = 9
"""Number of clean intensities, evenly spaced over [0, 1], at which mean and std of the noise are measured."""
STRUCTURE = 10
"""Number of values of :func:`structure`."""

_PRIOR_PIXELS = 64.0  # weight of the overall statistics at each knot, for intensities missing in the reference
_SMALLEST_STD = 1e-3  # a quarter of a digital number; dequantised noise has more
_LAGS = ((0, 1), (1, 0), (0, 2), (2, 0))


def noise_levels(noise: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std of noise (B, C, H, W) at :data:`KNOTS` intensities, (B, C, K) each, for images in [0, 1].

    Each pixel contributes to the two adjacent knots with the weights of linear interpolation.
    """
    flat, locations = noise.flatten(2), _locations(clean.flatten(2))
    weight = _spread(torch.ones_like(flat), locations) + _PRIOR_PIXELS
    mean = (_spread(flat, locations) + _PRIOR_PIXELS * flat.mean(2, keepdim=True)) / weight
    squares = (flat - _between(mean, locations)).square()
    variance = (_spread(squares, locations) + _PRIOR_PIXELS * squares.mean(2, keepdim=True)) / weight
    return mean, variance.sqrt().clamp(min=_SMALLEST_STD)


def at_pixels(values: Tensor, clean: Tensor) -> Tensor:
    """Interpolate values at knots (B, C, K) at the intensities of images (B, C, H, W)."""
    return _between(values, _locations(clean.flatten(2))).view(clean.shape)


def structure(noise: Tensor, std: Tensor) -> Tensor:
    """Return statistics (B, 10) of standardised noise (B, 3, H, W) and its ``std`` at knots (B, 3, K).

    The statistics are the logarithm of the mean std per channel (0 for 2.55 digital numbers), the correlations of the
    three pairs of channels, and the autocorrelations at lags 1 and 2, horizontal and vertical, averaged over channels.
    """
    log_std = (std.mean(2) * 100).log()
    red, green, blue = noise.unbind(1)
    power = noise.square().mean((1, 2, 3)) + 1e-6
    colours = [(a * b).mean((1, 2)) / power for a, b in ((red, green), (red, blue), (green, blue))]
    height, width = noise.shape[-2:]
    lags = [(noise[..., : height - y, : width - x] * noise[..., y:, x:]).mean((1, 2, 3)) / power for y, x in _LAGS]
    return torch.cat([log_std, torch.stack(colours + lags, dim=1)], dim=1)


def _locations(intensity: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the knot below, and weight of the knot above."""
    position = intensity.clamp(0, 1) * (KNOTS - 1)
    below = position.floor().clamp(max=KNOTS - 2)
    return below.long(), position - below


def _spread(values: Tensor, locations: tuple[Tensor, Tensor]) -> Tensor:
    below, weight = locations
    total = values.new_zeros((*values.shape[:2], KNOTS))
    return total.scatter_add(2, below, values * (1 - weight)).scatter_add(2, below + 1, values * weight)


def _between(values: Tensor, locations: tuple[Tensor, Tensor]) -> Tensor:
    below, weight = locations
    return values.gather(2, below).lerp(values.gather(2, below + 1), weight)
