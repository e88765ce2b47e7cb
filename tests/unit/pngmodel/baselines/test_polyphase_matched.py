"""Noise of a demosaiced sensor: what samples every second pixel is drawn, where a stationary method cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.baselines import baseline

SIDE = 256


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Green noise measured at two of four places and interpolated at the others; red and blue white."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(3, SIDE + 2, SIDE + 2, generator=g)
    y, x = torch.meshgrid(torch.arange(SIDE + 2), torch.arange(SIDE + 2), indexing="ij")
    measured = ((y + x) % 2 == 0).float()
    kernel = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]])[None, None]
    green = F.conv2d((raw[1] * measured)[None, None], kernel) / F.conv2d(measured[None, None], kernel)
    noise = raw[:, 1:-1, 1:-1].clone()
    noise[1] = green[0, 0]
    clean = torch.linspace(0.3, 0.7, SIDE).expand(3, SIDE, SIDE).contiguous()
    return clean + 0.04 * noise + 0.008 * torch.randn(3, SIDE, SIDE, generator=g), clean


def green_stds(noise: Tensor) -> np.ndarray:
    return np.array([float(noise[1, a::2, b::2].std()) for a in (0, 1) for b in (0, 1)])


def diagonal(noise: Tensor, a: int, b: int) -> float:
    """Correlation of green with its right neighbour, from one place of the pattern."""
    left, right = noise[1, a::2, b : SIDE - 2 : 2], noise[1, a::2, b + 1 : SIDE - 1 : 2]
    return float(np.corrcoef(left.flatten(), right.flatten())[0, 1])


def test_the_pattern_is_drawn(pair: tuple[Tensor, Tensor]) -> None:
    noisy, clean = pair
    real = green_stds(noisy - clean)
    assert real.max() / real.min() > 1.5
    found = {}
    for name in ("polyphase_matched", "spectrum_matched_quantiles"):
        model = baseline(name)
        drawn = model.sample(clean[None], [model.extract(noisy, clean)], [1])[0] - clean
        found[name] = np.abs(green_stds(drawn) / real - 1).max()
        if name == "polyphase_matched":
            for location in ((0, 0), (0, 1), (1, 0), (1, 1)):
                assert diagonal(drawn, *location) == pytest.approx(diagonal(noisy - clean, *location), abs=0.04)
    assert found["polyphase_matched"] < 0.03
    assert found["spectrum_matched_quantiles"] > 0.15


def test_two_draws_are_independent_and_no_copy_of_the_reference(pair: tuple[Tensor, Tensor]) -> None:
    noisy, clean = pair
    model = baseline("polyphase_matched")
    prompts = model.extract(noisy, clean)
    one, two = (model.sample(clean[None], [prompts], [seed])[0] - clean for seed in (1, 2))
    for a, b in ((one, two), (one, noisy - clean)):
        assert abs(float(np.corrcoef(a.flatten(), b.flatten())[0, 1])) < 0.02
