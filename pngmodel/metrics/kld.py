"""Kullback-Leibler divergence of noise histograms, KL(real || generated), natural logarithm.

Three definitions are in use and their scores are not comparable: other bins, other rounding. Here are
those of NAFlow (also GuidNoise, PNG) and NeCA. All channels of an image share one histogram, and only
bins where both histograms are above zero count; what is left is NOT normalised again. So the figure is no
true divergence: bins that the generator never fills cost nothing, and the clean image itself scores below 0
(at worst -1/e). Read it beside the std ratio.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.metrics.differences import PEAK, check_images, level_noise, unit_noise

NAFLOW_BINS = 256  # equal, on [-1, 1]
NECA_BINS = 64 + 2  # width .2/64 on [-.1, .1], and two open tails


def kld_naflow(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """NAFlow's KLD of one image, all (C, H, W) in [0, 1]; range [-1/e, inf), lower is better.

    The generated image is clamped but not rounded, as in the published tables. Real noise of 8-bit images
    sits on whole levels and unrounded noise does not, so a perfect generator scores about .01 on SIDD.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return divergence(unit_histogram(unit_noise(real_noisy, clean)), unit_histogram(unit_noise(generated, clean)))


def kld_naflow_rounded(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """:func:`kld_naflow` with every image rounded to 8 bits: the honest one (a perfect generator: <= .0006)."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return divergence(level_histogram(level_noise(real_noisy, clean)), level_histogram(level_noise(generated, clean)))


def kld_neca(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """NeCA's KLD of one image, all (C, H, W) in [0, 1]; images rounded to 8 bits, 64 bins on [-.1, .1], two tails."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return divergence(neca_histogram(level_noise(real_noisy, clean)), neca_histogram(level_noise(generated, clean)))


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of two histograms of counts, over the bins where both are above zero."""
    p, q = p.double() / p.sum(), q.double() / q.sum()
    both = (p > 0) & (q > 0)
    return float((p[both] * (p[both] / q[both]).log()).sum())


def unit_histogram(noise: Tensor) -> Tensor:
    """Counts (256,) of float32 noise in [-1, 1]; the last bin holds its upper edge, as numpy's does."""
    # Times 128 is exact in binary. (noise + 1) is not: it would pull -1e-9 over the edge at zero.
    index = (noise.float() * (NAFLOW_BINS // 2)).floor().long() + NAFLOW_BINS // 2
    return _count(index.clamp(max=NAFLOW_BINS - 1), NAFLOW_BINS)


def level_histogram(noise: Tensor) -> Tensor:
    """Counts (256,) of integer level noise d in [-255, 255], in the bins of :func:`unit_histogram`.

    The bin is floor((d/255 + 1) * 128), in integers throughout: d = 0 lies ON the edge of bin 128 and
    d = 255 on the upper edge of the last; no other level touches an edge.
    """
    index = (noise + PEAK) * (NAFLOW_BINS // 2) // PEAK
    return _count(index.clamp(max=NAFLOW_BINS - 1), NAFLOW_BINS)


def neca_histogram(noise: Tensor) -> Tensor:
    """Counts (66,) of integer level noise d: bin floor((d/255 + .1) / (.2/64)) and the tails at both ends."""
    # (d/255 + 1/10) * 320 = (10 d + 255) * 32 / 255
    index = torch.div((10 * noise + PEAK) * 32, PEAK, rounding_mode="floor")
    return _count(index.clamp(-1, NECA_BINS - 2) + 1, NECA_BINS)


def _count(index: Tensor, bins: int) -> Tensor:
    return torch.bincount(index.flatten(), minlength=bins)
