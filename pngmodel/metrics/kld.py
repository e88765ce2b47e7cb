"""Kullback-Leibler divergence of noise histograms, KL(real || generated), natural logarithm.

Several definitions with different bins and rounding are in use, and their scores are not comparable. This module has
those of NAFlow (also GuidNoise and PNG) and NeCA. All channels of an image share one histogram. Only bins where both
histograms are above zero count, without renormalisation. The result is therefore not a true divergence: bins that the
generator never fills have no cost, and the clean image itself scores below 0 (at least -1/e). Always report the std
ratio as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.metrics.differences import PEAK, check_images, integer_noise, unit_noise

NAFLOW_BINS = 256  # equal bins on [-1, 1]
NECA_BINS = 64 + 2  # width 0.2/64 on [-0.1, 0.1], and two open tails


def kld_naflow(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return NAFlow's KLD of an image, (C, H, W) in [0, 1]; in [-1/e, inf), lower is better.

    The generated image is clamped but not rounded, as in published tables. Real noise of 8-bit images is a multiple of
    1/255, whereas generated noise is not, so a perfect generator scores about 0.01 on SIDD.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return divergence(unit_histogram(unit_noise(real_noisy, clean)), unit_histogram(unit_noise(generated, clean)))


def kld_naflow_rounded(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return :func:`kld_naflow` with all images rounded to 8 bits; a perfect generator scores at most 0.0006."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    real, other = (integer_histogram(integer_noise(image, clean)) for image in (real_noisy, generated))
    return divergence(real, other)


def kld_neca(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return NeCA's KLD of an image, (C, H, W) in [0, 1]: rounded to 8 bits, 64 bins on [-0.1, 0.1] and two tails."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return divergence(neca_histogram(integer_noise(real_noisy, clean)), neca_histogram(integer_noise(generated, clean)))


def divergence(p: Tensor, q: Tensor) -> float:
    """Return KL(p || q) of two histograms of counts, over the bins where both are above zero."""
    p, q = p.double() / p.sum(), q.double() / q.sum()
    both = (p > 0) & (q > 0)
    return float((p[both] * (p[both] / q[both]).log()).sum())


def unit_histogram(noise: Tensor) -> Tensor:
    """Return counts (256,) of float32 noise in [-1, 1]; the last bin includes its upper edge, as in NumPy."""
    # Multiplying by 128 is exact, whereas (noise + 1) would round -1e-9 across the edge at zero.
    index = (noise.float() * (NAFLOW_BINS // 2)).floor().long() + NAFLOW_BINS // 2
    return _count(index.clamp(max=NAFLOW_BINS - 1), NAFLOW_BINS)


def integer_histogram(noise: Tensor) -> Tensor:
    """Return counts (256,) of integer noise d in [-255, 255], in the bins of :func:`unit_histogram`.

    The bin is floor((d/255 + 1) * 128), computed in integers. d = 0 is at the lower edge of bin 128, d = 255 at the
    upper edge of the last bin, and no other value is at an edge.
    """
    index = (noise + PEAK) * (NAFLOW_BINS // 2) // PEAK
    return _count(index.clamp(max=NAFLOW_BINS - 1), NAFLOW_BINS)


def neca_histogram(noise: Tensor) -> Tensor:
    """Return counts (66,) of integer noise d: bins floor((d/255 + 0.1) / (0.2/64)), and two tails."""
    # (d/255 + 1/10) * 320 = (10 d + 255) * 32 / 255
    index = torch.div((10 * noise + PEAK) * 32, PEAK, rounding_mode="floor")
    return _count(index.clamp(-1, NECA_BINS - 2) + 1, NECA_BINS)


def _count(index: Tensor, bins: int) -> Tensor:
    return torch.bincount(index.flatten(), minlength=bins)
