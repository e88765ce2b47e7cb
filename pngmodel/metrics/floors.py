"""Floors: what a PERFECT generator would score on one pair. A table without them cannot be read.

A perfect generator draws fresh noise from the true conditional distribution. One pair holds one draw, so
each floor is an estimate, and its method is part of the figure:

kld_naflow            the real image dithered by +-.5 level: right distribution, no longer on whole levels.
kld_naflow_rounded,   random disjoint halves of the real noise's pixels, halved once more: sampling error of a
kld_neca              divergence falls as one over the pixels, and two whole images have twice as many.
akld                  measured on independent pairs of Gaussian fields; read at the image's own lag-1 correlation.
lag1_error, ..,       left half against right half of the real noise: the variation within one image. Includes
std_curve_error       the scene's own variation, so it is somewhat high.
std_ratio             1, and mean_offset 0: unbiased by definition.
saturation_error      mean absolute difference of two binomial shares with the image's own rate.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pngmodel.metrics import curves, kld
from pngmodel.metrics.autocorrelation import autocorrelation, structure_errors
from pngmodel.metrics.differences import PEAK, check_images, level_noise, on_levels, unit_noise
from pngmodel.seeds import generator

# Lag-1 correlation of a Gaussian field -> AKLD between two independent draws of it.
_AKLD_FLOOR = ((0.0, 0.042), (0.26, 0.052), (0.45, 0.075), (0.51, 0.085), (0.67, 0.140), (0.71, 0.155), (0.78, 0.20))
_HALF_TO_WHOLE = 0.5


def floor_metrics(real_noisy: Tensor, clean: Tensor) -> dict[str, float]:
    """Floor of every metric for one real pair (C, H, W) in [0, 1], by the methods above; deterministic."""
    check_images(real_noisy=real_noisy, clean=clean)
    noise = unit_noise(real_noisy, clean)
    lag1 = float(autocorrelation(noise, 1).mean())
    middle = noise.shape[-1] // 2
    left, right = noise[..., :middle], noise[..., middle:]
    # Levels must be halved before they are counted, by the same halves for both definitions.
    levels = [_half(level_noise(real_noisy, clean), part) for part in (0, 1)]
    share = curves.saturation(real_noisy)
    return {
        "kld_naflow": _unrounded(real_noisy, clean),
        "kld_naflow_rounded": _HALF_TO_WHOLE * kld.divergence(*map(kld.level_histogram, levels)),
        "kld_neca": _HALF_TO_WHOLE * kld.divergence(*map(kld.neca_histogram, levels)),
        "akld": float(np.interp(lag1, *np.transpose(_AKLD_FLOOR))),
        **structure_errors(left, right),
        "std_curve_error": curves.relative_curve_error(left, clean[..., :middle], right, clean[..., middle:]),
        "std_ratio": 1.0,
        "mean_offset": 0.0,
        # E|a - b| of two normal variables of one mean is 2 std / sqrt(pi).
        "saturation_error": 2 * math.sqrt(share * (1 - share) / noise.numel() / math.pi),
    }


def _unrounded(real_noisy: Tensor, clean: Tensor) -> float:
    if on_levels(real_noisy):
        jitter = torch.rand(real_noisy.shape, generator=generator("floor dither")) - 0.5
        return kld.kld_naflow(real_noisy, real_noisy + jitter.to(real_noisy.device) / PEAK, clean)
    # Real noise that is not on levels has no such artefact: sampling error is all.
    noise = unit_noise(real_noisy, clean)
    return _HALF_TO_WHOLE * kld.divergence(*(kld.unit_histogram(_half(noise, part)) for part in (0, 1)))


def _half(noise: Tensor, part: int) -> Tensor:
    order = torch.randperm(noise.numel(), generator=generator("floor halves")).to(noise.device)
    return noise.flatten()[order[part::2]]
