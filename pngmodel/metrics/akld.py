"""AKLD: divergence of local noise variances (DANet, ECCV 2020, arXiv 2007.05946; also NAFlow, GuidNoise, PNG)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pngmodel.metrics.differences import check_images, unit_noise

# OpenCV's fixed table for a 7-tap Gaussian without a given sigma, which is not a Gaussian of sigma 1.4.
_TAPS = torch.tensor([1 / 32, 7 / 64, 7 / 32, 9 / 32, 7 / 32, 7 / 64, 1 / 32], dtype=torch.float64)
_SMALLEST_VARIANCE = 1e-10
_LARGEST_RATIO = 10.0


def local_variance(noise: Tensor) -> Tensor:
    """Return the weighted mean square (C, H, W) of noise over 7 x 7 pixels, float64; the mean is not subtracted."""
    reach = len(_TAPS) // 2
    # reflection padding without repeating the border pixel
    padded = nn.functional.pad(noise.double().square()[:, None], (reach,) * 4, mode="reflect")
    taps = _TAPS.to(noise.device)
    rows = nn.functional.conv2d(padded, taps.reshape(1, 1, -1, 1))
    return nn.functional.conv2d(rows, taps.reshape(1, 1, 1, -1))[:, 0].clamp(min=_SMALLEST_VARIANCE)


def akld(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return the AKLD of one sample, images (C, H, W) in [0, 1], not rounded; range [0, 3.35], lower is better.

    Mean of (r - 1 - ln r) / 2 with r = generated / real local variance, limited to [0.1, 10]. It is not symmetric, and
    a perfect generator does not reach 0: the floor grows with the spatial correlation of the noise (0.04 for white
    noise, 0.08 on SIDD). Values far below the floor indicate leakage.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    ratio = local_variance(unit_noise(generated, clean)) / local_variance(unit_noise(real_noisy, clean))
    ratio = ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)
    return float(((ratio - 1 - ratio.log()) / 2).mean())
