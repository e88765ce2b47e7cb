"""AKLD: divergence of local noise variances (DANet; copied by NAFlow, GuidNoise, PNG)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pngmodel.metrics.differences import check_images, unit_noise

# The fixed table of OpenCV for a 7-tap Gaussian without a sigma; it is not a Gaussian of sigma 1.4.
_TAPS = torch.tensor([1 / 32, 7 / 64, 7 / 32, 9 / 32, 7 / 32, 7 / 64, 1 / 32], dtype=torch.float64)
_SMALLEST_VARIANCE = 1e-10
_LARGEST_RATIO = 10.0


def local_variance(noise: Tensor) -> Tensor:
    """Weighted mean square (C, H, W) of noise over 7 x 7 pixels; the mean is NOT subtracted. float64."""
    reach = len(_TAPS) // 2
    # Mirrored without repeating the border pixel.
    padded = nn.functional.pad(noise.double().square()[:, None], (reach,) * 4, mode="reflect")
    taps = _TAPS.to(noise.device)
    rows = nn.functional.conv2d(padded, taps.reshape(1, 1, -1, 1))
    return nn.functional.conv2d(rows, taps.reshape(1, 1, 1, -1))[:, 0].clamp(min=_SMALLEST_VARIANCE)


def akld(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """AKLD of one draw of one image, all (C, H, W) in [0, 1], unrounded; range [0, 3.35], lower is better.

    Mean of (r - 1 - ln r) / 2 with r = generated / real local variance, limited to [.1, 10]. It is not
    symmetric, and a perfect independent generator does not reach 0: its floor grows with the spatial
    correlation of the noise (.04 for white noise, .08 on SIDD). Far below the floor means leakage.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    ratio = local_variance(unit_noise(generated, clean)) / local_variance(unit_noise(real_noisy, clean))
    ratio = ratio.clamp(1 / _LARGEST_RATIO, _LARGEST_RATIO)
    return float(((ratio - 1 - ratio.log()) / 2).mean())
