"""AKLD against scipy, its floor, and its asymmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter

from pngmodel.metrics.akld import akld, local_variance
from pngmodel.metrics.floors import floor_metrics

TAPS = np.array([0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125])


def white(seed: int, size: int = 256, std: float = 0.05) -> torch.Tensor:
    return std * torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))


def blurred(seed: int, sigma: float) -> torch.Tensor:
    x = np.stack([gaussian_filter(c, sigma, mode="wrap") for c in white(seed).double().numpy()])
    return torch.from_numpy(0.05 * x / x.std()).float()


def reference(real: np.ndarray, generated: np.ndarray, clean: np.ndarray) -> float:
    values = []
    for r, g, c in zip(*(x.astype(np.float64) for x in (real, generated, clean)), strict=True):
        kernel = np.outer(TAPS, TAPS)
        vr, vg = (np.maximum(correlate((x - c) ** 2, kernel, mode="mirror"), 1e-10) for x in (r, g))
        ratio = np.clip(vg / vr, 0.1, 10)
        values.append((ratio - 1 - np.log(ratio)) / 2)
    return float(np.mean(values))


def test_kernel_and_border_against_scipy() -> None:
    noise = white(0, 24)
    expected = np.stack([correlate(n**2, np.outer(TAPS, TAPS), mode="mirror") for n in noise.double().numpy()])
    np.testing.assert_allclose(local_variance(noise).numpy(), expected, rtol=1e-6)
    assert TAPS.sum() == 1
    assert float(local_variance(torch.zeros(1, 16, 16)).max()) == 1e-10


def test_whole_metric_against_scipy(pair) -> None:
    real, clean = pair(1)
    generated = (clean + white(2, clean.shape[-1])).clamp(0, 1)
    expected = reference(real.numpy(), generated.numpy(), clean.numpy())
    assert akld(real, generated, clean) == pytest.approx(expected, rel=1e-5)
    assert akld(real, real, clean) == 0


def test_floor_of_white_noise_and_its_growth_with_correlation() -> None:
    clean = torch.full((3, 256, 256), 0.5)
    assert akld(clean + white(1), clean + white(2), clean) == pytest.approx(0.042, abs=0.003)
    for sigma in (0.5, 0.6, 0.8, 1.0):
        real, other = (clean + blurred(seed, sigma) for seed in (1, 2))
        # Lag-1 correlations .26, .45, .67 and .78.
        assert akld(real, other, clean) == pytest.approx(floor_metrics(real, clean)["akld"], rel=0.05)


@pytest.mark.parametrize(("gain", "expected"), [(0.8, 0.070), (1.25, 0.124)])
def test_asymmetry(gain: float, expected: float) -> None:
    # The figures of white noise: floor .042 and a wrong gain on top.
    clean = torch.full((3, 256, 256), 0.5)
    found = akld(clean + white(1), clean + gain * white(2), clean)
    assert found == pytest.approx(expected, abs=0.01)


def test_mean_is_not_subtracted_and_the_ratio_is_limited() -> None:
    clean = torch.full((1, 16, 16), 0.25)
    assert akld(clean + 0.1, clean + 0.2, clean) == pytest.approx((4 - 1 - np.log(4)) / 2, rel=1e-5)
    assert akld(clean + 0.01, clean + 0.5, clean) == pytest.approx((10 - 1 - np.log(10)) / 2)
    assert akld(clean + 0.5, clean, clean) == pytest.approx((0.1 - 1 - np.log(0.1)) / 2)
