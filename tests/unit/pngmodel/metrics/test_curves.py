"""Noise level figures against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.metrics import curves


def test_curve_against_numpy(pair) -> None:
    real, clean = pair(1)
    curve = curves.noise_curve(real - clean, clean, bins=8, min_pixels=100)
    n, i = (real - clean).double().numpy(), clean.numpy()
    np.testing.assert_allclose(curve.intensity.numpy(), (np.arange(8) + 0.5) / 8)
    for c in range(3):
        for b in range(8):
            inside = n[c][(i[c] >= b / 8) & (i[c] < (b + 1) / 8)]
            assert int(curve.pixels[c, b]) == len(inside)
            if len(inside) < 100:
                assert np.isnan(curve.std[c, b])
                assert np.isnan(curve.mean[c, b])
            else:
                assert float(curve.std[c, b]) == pytest.approx(inside.std(), abs=1e-9)
                assert float(curve.mean[c, b]) == pytest.approx(inside.mean(), abs=1e-9)
    assert int(curve.pixels.sum()) == clean.numel()
    # White is in the last bin, not beyond it.
    assert int(curves.noise_curve(torch.zeros(1, 16, 16), torch.ones(1, 16, 16)).pixels[0, -1]) == 256


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.3])
def test_gain_is_found_by_ratio_and_curve(pair, gain: float) -> None:
    real, clean = pair(2)
    generated = clean + gain * (real - clean)
    assert curves.std_ratio(real, generated, clean) == pytest.approx(gain, rel=0.01)
    assert curves.std_curve_error(real, generated, clean) == pytest.approx(abs(gain - 1), rel=0.02)


def test_curve_sees_what_the_ratio_does_not(pair) -> None:
    real, clean = pair(3)
    noise = real - clean
    flat = clean + curves.noise_std(noise) * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert curves.std_ratio(real, flat.clamp(0, 1), clean) == pytest.approx(1, abs=0.05)
    assert curves.std_curve_error(real, flat.clamp(0, 1), clean) > 0.15
    assert curves.std_curve_error(real, pair(3, repeat=1)[0], clean) < 0.03


def test_std_is_about_each_channels_mean() -> None:
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    moved = noise + torch.tensor([5.0, 0.0, -5.0])[:, None, None]
    assert curves.noise_std(moved) == pytest.approx(curves.noise_std(noise), rel=1e-5)


def test_offset_has_a_sign_and_is_in_levels() -> None:
    clean = torch.full((3, 16, 16), 0.5)
    assert curves.mean_offset(clean, clean - 7 / 255, clean) == pytest.approx(-7, abs=1e-4)
    assert curves.mean_offset(clean - 7 / 255, clean, clean) == pytest.approx(7, abs=1e-4)


def test_saturation_counts_rounded_levels() -> None:
    clean = torch.full((1, 16, 16), 0.5)
    generated = clean.clone()
    generated[0, 0, :8] = 0.4 / 255  # rounds to black
    generated[0, 0, 8:] = 1.2
    generated[0, 1, :4] = 0.6 / 255  # rounds to level 1
    assert curves.saturation_error(clean, generated, clean) == 16 / 256
    assert curves.saturation_error(generated, clean, clean) == 16 / 256


def test_small_flat_and_noise_free_images_stay_finite() -> None:
    clean = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))  # no bin has 256 pixels
    noisy = (clean + 0.1).clamp(0, 1)
    assert np.isfinite(curves.std_curve_error(noisy, clean, clean))
    flat = torch.full((3, 64, 64), 0.5)
    assert curves.std_curve_error(flat, flat, flat) == 0
    assert curves.std_ratio(flat, flat, flat) == 1
