"""Seeded 8-bit pairs with correlated, signal-dependent noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d


def make_pair(seed: int = 0, size: int = 192, channels: int = 3, repeat: int = 0) -> tuple[Tensor, Tensor]:
    """``(noisy, clean)`` on 8-bit levels; ``repeat`` varies the noise and keeps the clean image."""
    g = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.1, 0.8, size).expand(channels, size, size)
    clean = ((ramp + 0.05 * torch.rand(channels, size, size, generator=g)) * 255).round() / 255
    g.manual_seed(1000 * seed + repeat + 1)
    white = torch.randn(channels, 1, size + 2, size + 2, generator=g)
    kernel = torch.outer(torch.tensor([1.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 1.0]))
    u = conv2d(white, (kernel / kernel.square().sum().sqrt())[None, None])[:, 0]
    u = 0.8 * u + 0.6 * u.roll(1, 0) if channels > 1 else u
    noisy = (clean + (0.02 + 0.06 * clean) * u).clamp(0, 1)
    return (noisy * 255).round() / 255, clean


@pytest.fixture
def pair() -> Callable[..., tuple[Tensor, Tensor]]:
    """:func:`make_pair` as a fixture."""
    return make_pair
