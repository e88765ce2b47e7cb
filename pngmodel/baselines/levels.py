"""What trained baselines are told of a reference where their papers have camera and ISO: levels and structure."""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS = 9
"""Clean intensities, evenly spread over [0, 1], at which a reference's noise is described."""
STRUCTURE = 10
"""Numbers of :func:`structure`."""

_PRIOR_PIXELS = 64.0  # weight of the whole reference at a knot: intensities it does not have take its overall level
_SMALLEST_STD = 1e-3  # a quarter of a grey level: dequantised noise has more
_LAGS = ((0, 1), (1, 0), (0, 2), (2, 0))


def noise_levels(noise: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of the noise at :data:`KNOTS` intensities, (B, C, K) each, of (B, C, H, W) in units of [0, 1].

    Pixels count at the two knots around them, as in linear interpolation.
    """
    flat, locations = noise.flatten(2), _locations(clean.flatten(2))
    weight = _spread(torch.ones_like(flat), locations) + _PRIOR_PIXELS
    mean = (_spread(flat, locations) + _PRIOR_PIXELS * flat.mean(2, keepdim=True)) / weight
    squares = (flat - _between(mean, locations)).square()
    variance = (_spread(squares, locations) + _PRIOR_PIXELS * squares.mean(2, keepdim=True)) / weight
    return mean, variance.sqrt().clamp(min=_SMALLEST_STD)


def at_pixels(values: Tensor, clean: Tensor) -> Tensor:
    """Values at knots (B, C, K), read at the intensities of (B, C, H, W)."""
    return _between(values, _locations(clean.flatten(2))).view(clean.shape)


def structure(noise: Tensor, std: Tensor) -> Tensor:
    """Numbers about standardised noise (B, 3, H, W) and its ``std`` at knots, (B, 10).

    Logarithm of the mean std of each colour (about 0 for 2.5 grey levels), the correlations of the three pairs of
    colours, and those of pixels 1 and 2 apart across and down, mean over colours.
    """
    level = (std.mean(2) * 100).log()
    red, green, blue = noise.unbind(1)
    power = noise.square().mean((1, 2, 3)) + 1e-6
    colours = [(a * b).mean((1, 2)) / power for a, b in ((red, green), (red, blue), (green, blue))]
    height, width = noise.shape[-2:]
    lags = [(noise[..., : height - y, : width - x] * noise[..., y:, x:]).mean((1, 2, 3)) / power for y, x in _LAGS]
    return torch.cat([level, torch.stack(colours + lags, dim=1)], dim=1)


def _locations(intensity: Tensor) -> tuple[Tensor, Tensor]:
    """Knot below and weight of the one above."""
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
