"""PSNR and SSIM of denoised images with named protocols.

``sidd``   both images are rounded to 8 bits, peak 255. Truncation instead of rounding would cost up to 0.3 dB.
``float``  no rounding, peak 1.

Metrics are computed per image and averaged over images. Pooling the squared error over images gives another metric.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pngmodel.errors import UserError
from pngmodel.metrics.differences import PEAK, check_images, to_8bit

Protocol = Literal["sidd", "float"]
_WINDOW, _SIGMA = 11, 1.5  # Wang et al. 2004
_K1, _K2 = 0.01, 0.03


def psnr(image: Tensor, clean: Tensor, protocol: Protocol = "sidd") -> float:
    """Return the peak signal-to-noise ratio in dB, images (C, H, W) in [0, 1]; higher is better, infinite if equal."""
    x, y, peak = _prepared(image, clean, protocol)
    error = float((x - y).square().mean())
    return 10 * math.log10(peak**2 / error) if error else math.inf


def ssim(image: Tensor, clean: Tensor, protocol: Protocol = "sidd") -> float:
    """Return the structural similarity (Wang et al. 2004), images (C, H, W) in [0, 1]; in [-1, 1], higher is better.

    Gaussian window of 11 x 11 pixels with sigma 1.5, population covariance, valid area only, mean over channels.
    """
    x, y, peak = _prepared(image, clean, protocol)
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - mean_x.square()
    var_y = _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float((luminance * structure).mean())


def _prepared(image: Tensor, clean: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor, float]:
    check_images(image=image, clean=clean)
    if protocol == "sidd":
        return to_8bit(image).double(), to_8bit(clean).double(), float(PEAK)
    if protocol == "float":
        return image.double(), clean.double(), 1.0
    raise UserError(f"fidelity: unknown protocol {protocol!r}; choose 'sidd' or 'float'")


def _blurred(x: Tensor) -> Tensor:
    """Gaussian means (C, H - 10, W - 10), float64 to avoid cancellation in variances."""
    at = torch.arange(_WINDOW, dtype=torch.float64, device=x.device) - _WINDOW // 2
    taps = torch.exp(-0.5 * (at / _SIGMA).square())
    taps = taps / taps.sum()
    rows = nn.functional.conv2d(x[:, None], taps.reshape(1, 1, -1, 1))
    return nn.functional.conv2d(rows, taps.reshape(1, 1, 1, -1))[:, 0]
