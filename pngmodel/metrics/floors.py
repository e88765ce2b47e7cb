"""Floors: the expected scores of a perfect generator on a pair.

A perfect generator samples new noise from the true conditional distribution. A pair has only one sample of it, so the
floors are estimates:

kld_naflow            divergence after dithering the real image by +-0.5 digital numbers: the true distribution, but not
                      integers.
kld_naflow_rounded,   half the divergence between random disjoint halves of the pixels of the real noise: the sampling
kld_neca              error is inversely proportional to the number of pixels, and whole images have twice as many.
akld                  tabulated for independent Gaussian fields, at the lag-1 autocorrelation of the image.
lag1_error, ...,      left against right half of the real noise. Includes variation of the scene, so it is somewhat too
std_curve_error       high.
std_ratio             1; mean_offset 0.
saturation_error      expected absolute difference of two binomial shares with the rate of the image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pngmodel.metrics import curves, kld
from pngmodel.metrics.autocorrelation import autocorrelation, structure_errors
from pngmodel.metrics.differences import PEAK, check_images, integer_noise, is_8bit, unit_noise
from pngmodel.seeds import generator

# (lag-1 autocorrelation of a Gaussian field, AKLD between two independent samples of it)
_AKLD_FLOOR = ((0.0, 0.042), (0.26, 0.052), (0.45, 0.075), (0.51, 0.085), (0.67, 0.140), (0.71, 0.155), (0.78, 0.20))
_HALF_TO_WHOLE = 0.5


def floor_metrics(real_noisy: Tensor, clean: Tensor) -> dict[str, float]:
    """Return the floor of every metric for a real pair (C, H, W) in [0, 1]; deterministic."""
    check_images(real_noisy=real_noisy, clean=clean)
    noise = unit_noise(real_noisy, clean)
    lag1 = float(autocorrelation(noise, 1).mean())
    middle = noise.shape[-1] // 2
    left, right = noise[..., :middle], noise[..., middle:]
    halves = [_half(integer_noise(real_noisy, clean), part) for part in (0, 1)]
    share = curves.saturation(real_noisy)
    return {
        "kld_naflow": _unrounded(real_noisy, clean),
        "kld_naflow_rounded": _HALF_TO_WHOLE * kld.divergence(*map(kld.integer_histogram, halves)),
        "kld_neca": _HALF_TO_WHOLE * kld.divergence(*map(kld.neca_histogram, halves)),
        "akld": float(np.interp(lag1, *np.transpose(_AKLD_FLOOR))),
        **structure_errors(left, right),
        "std_curve_error": curves.relative_curve_error(left, clean[..., :middle], right, clean[..., middle:]),
        "std_ratio": 1.0,
        "mean_offset": 0.0,
        # E|a - b| of two independent normal variables with equal mean is 2 std / sqrt(pi)
        "saturation_error": 2 * math.sqrt(share * (1 - share) / noise.numel() / math.pi),
    }


def _unrounded(real_noisy: Tensor, clean: Tensor) -> float:
    if is_8bit(real_noisy):
        jitter = torch.rand(real_noisy.shape, generator=generator("floor dither")) - 0.5
        return kld.kld_naflow(real_noisy, real_noisy + jitter.to(real_noisy.device) / PEAK, clean)
    # Images that are not rounded to 8 bits only have sampling error.
    noise = unit_noise(real_noisy, clean)
    return _HALF_TO_WHOLE * kld.divergence(*(kld.unit_histogram(_half(noise, part)) for part in (0, 1)))


def _half(noise: Tensor, part: int) -> Tensor:
    order = torch.randperm(noise.numel(), generator=generator("floor halves")).to(noise.device)
    return noise.flatten()[order[part::2]]
