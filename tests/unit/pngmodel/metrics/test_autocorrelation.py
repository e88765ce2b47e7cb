"""Correlations against numpy in float64 and against fields of known correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.metrics.autocorrelation import autocorrelation, autocorrelation_errors, cross_channel


def brute_force(noise: np.ndarray, lags: int) -> np.ndarray:
    x = noise.astype(np.float64)
    x = x - x.mean((1, 2), keepdims=True)
    channels, height, width = x.shape
    out = np.zeros((2, lags))
    for k in range(1, lags + 1):
        across = [x[c, i, j] * x[c, i, j + k] for c in range(channels) for i in range(height) for j in range(width - k)]
        down = [x[c, i, j] * x[c, i + k, j] for c in range(channels) for i in range(height - k) for j in range(width)]
        out[:, k - 1] = np.mean(across), np.mean(down)
    return out / np.mean(x**2)


def test_equals_brute_force(pair) -> None:
    real, clean = pair(1, size=21)
    noise = (real - clean)[:, :17]
    np.testing.assert_allclose(autocorrelation(noise).numpy(), brute_force(noise.numpy(), 5), atol=1e-12)
    assert autocorrelation(noise, 2).shape == (2, 2)


def test_known_correlation_and_direction() -> None:
    x = torch.randn(3, 512, 513, generator=torch.Generator().manual_seed(0))
    smooth = x[..., 1:] + x[..., :-1]  # horizontal: .5 at lag 1, 0 beyond
    expected = torch.zeros(2, 5, dtype=torch.float64)
    expected[0, 0] = 0.5
    torch.testing.assert_close(autocorrelation(smooth), expected, atol=0.006, rtol=0)
    # Neither an offset per channel nor the scale matters.
    moved = 0.01 * smooth + torch.tensor([0.3, -0.2, 0.0])[:, None, None]
    torch.testing.assert_close(autocorrelation(moved), autocorrelation(smooth), atol=1e-4, rtol=0)


def test_cross_channel_is_corrcoef(pair) -> None:
    real, clean = pair(2)
    noise = (real - clean).double()
    matrix = np.corrcoef(noise.flatten(1).numpy())
    np.testing.assert_allclose(cross_channel(noise).numpy(), matrix[[0, 0, 1], [1, 2, 2]], atol=1e-12)


def test_errors_are_means_of_absolute_gaps(pair) -> None:
    real, clean = pair(3)
    generated = (clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    found = autocorrelation_errors(real, generated, clean)
    p, q = (real - clean).numpy(), (generated - clean).numpy()
    gap = np.abs(brute_force(p, 5) - brute_force(q, 5))
    cp, cq = (np.corrcoef(x.reshape(3, -1))[[0, 0, 1], [1, 2, 2]] for x in (p, q))
    assert found["lag1_error"] == pytest.approx(gap[:, 0].mean(), abs=1e-6)
    assert found["autocorrelation_error"] == pytest.approx(gap.mean(), abs=1e-6)
    assert found["cross_channel_error"] == pytest.approx(np.abs(cp - cq).mean(), abs=1e-6)
    assert autocorrelation_errors(real, real, clean) == dict.fromkeys(found, 0.0)


def test_noise_is_measured_after_the_clamp(pair) -> None:
    real, clean = pair(4)
    wild = clean + 10 * (real - clean)
    assert autocorrelation_errors(real, wild, clean) == autocorrelation_errors(real, wild.clamp(0, 1), clean)
    assert autocorrelation_errors(real, wild, clean)["lag1_error"] > 0.001


def test_grey_and_noise_free_images_stay_finite(pair) -> None:
    real, clean = pair(5, channels=1)
    assert autocorrelation_errors(real, real.flip(-1), clean)["cross_channel_error"] == 0
    flat = torch.full((3, 16, 16), 0.5)
    assert set(autocorrelation_errors(flat, flat, flat).values()) == {0.0}
