"""PSNR and SSIM against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pngmodel.errors import UserError
from pngmodel.metrics.fidelity import psnr, ssim


def unrounded(pair, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    real, clean = pair(7, size=80, channels=channels)
    return (real + 0.3 / 255).clamp(0, 1), clean


def as_levels(x: torch.Tensor) -> np.ndarray:
    return np.rint(x.numpy().astype(np.float64) * 255).astype(np.uint8)


def skimage_ssim(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    values = []
    for a, b in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        _, full = structural_similarity(a, b, data_range=peak, full=True, **options)
        values.append(full[5:-5, 5:-5].mean())
    return float(np.mean(values))


@pytest.mark.parametrize("channels", [1, 3])
def test_sidd_protocol(pair, channels: int) -> None:
    image, clean = unrounded(pair, channels)
    x, y = as_levels(image), as_levels(clean)
    assert psnr(image, clean) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=255), abs=1e-9)
    assert ssim(image, clean) == pytest.approx(skimage_ssim(x, y, 255), abs=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_protocol(pair, channels: int) -> None:
    image, clean = unrounded(pair, channels)
    x, y = (a.double().numpy() for a in (image, clean))
    assert psnr(image, clean, "float") == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1), abs=1e-9)
    assert ssim(image, clean, "float") == pytest.approx(skimage_ssim(x, y, 1), abs=1e-9)


def test_rounds_and_does_not_truncate() -> None:
    clean = torch.full((3, 16, 16), 100 / 255)
    assert psnr(torch.full((3, 16, 16), 100.9 / 255), clean) == pytest.approx(20 * math.log10(255))
    assert psnr(torch.full((3, 16, 16), 100.4 / 255), clean) == math.inf
    assert math.isfinite(psnr(torch.full((3, 16, 16), 100.4 / 255), clean, "float"))


def test_equal_images_and_unknown_protocols(pair) -> None:
    image, clean = unrounded(pair)
    assert ssim(clean, clean) == pytest.approx(1, abs=1e-12)
    assert ssim(image, clean) < 1
    with pytest.raises(UserError, match="'sidd' or 'float'"):
        psnr(image, clean, "luma")
    with pytest.raises(UserError, match="shape"):
        ssim(image, clean[:1])


def test_a_hundred_random_pairs_agree_with_scikit_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        shape = (3, *rng.integers(16, 40, 2))
        y = rng.integers(0, 256, shape)
        x = np.clip(y + rng.normal(0, rng.uniform(1, 60), shape).round(), 0, 255)
        between = (z + rng.uniform(-0.45, 0.45, shape) for z in (x, y))  # a network's output lies between levels
        image, clean = (torch.from_numpy(z / 255).float().clamp(0, 1) for z in between)
        x, y = x.astype(np.uint8), y.astype(np.uint8)
        assert psnr(image, clean) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=255), abs=1e-6)
        assert ssim(image, clean) == pytest.approx(skimage_ssim(x, y, 255), abs=1e-6)
        truncated = (image.double() * 255).floor().numpy().astype(np.uint8)
        assert abs(psnr(image, clean) - peak_signal_noise_ratio(y, truncated, data_range=255)) > 1e-4
