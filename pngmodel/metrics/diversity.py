"""Diversity of samples: detects generators that repeat a sample or copy the reference."""

from __future__ import annotations

import math

from torch import Tensor

from pngmodel.metrics.differences import check_images, unit_noise

_SMALLEST_VARIANCE = 1e-12  # gives noise-free samples correlation 0 instead of NaN


def sample_correlation(first: Tensor, second: Tensor, clean: Tensor) -> float:
    """Return the Pearson correlation of the noise of two samples with different seeds, (C, H, W) in [0, 1]; best is 0.

    It is computed over all values of the image. Independent samples are not exactly uncorrelated, because they share
    the mean of the reference per intensity and channel, and the clipping of the clean image.

    Raises:
        UserError: The shapes differ, or the images are smaller than 16 x 16 pixels.
    """
    check_images(first=first, second=second, clean=clean)
    a, b = (unit_noise(sample, clean).double().flatten() for sample in (first, second))
    a, b = a - a.mean(), b - b.mean()
    variances = (x.square().mean().clamp(min=_SMALLEST_VARIANCE) for x in (a, b))
    return float((a * b).mean() / math.sqrt(math.prod(map(float, variances))))
