"""Do two draws differ? A generator that samples itself, or copies its reference, is caught here."""

from __future__ import annotations

import math

from torch import Tensor

from pngmodel.metrics.differences import check_images, unit_noise

_SMALLEST_VARIANCE = 1e-12  # two noise-free draws have correlation 0, not NaN


def sample_correlation(first: Tensor, second: Tensor, clean: Tensor) -> float:
    """Pearson correlation of the noise of two draws of different seeds, all (C, H, W) in [0, 1]; best is 0.

    Over all values of the image at once. Independent draws are not exactly at 0: they share the reference's mean
    against intensity and per channel, and the clipping of the clean image.

    Raises:
        UserError: shapes differ, or the images are below 16 x 16.
    """
    check_images(first=first, second=second, clean=clean)
    a, b = (unit_noise(sample, clean).double().flatten() for sample in (first, second))
    a, b = a - a.mean(), b - b.mean()
    variances = (x.square().mean().clamp(min=_SMALLEST_VARIANCE) for x in (a, b))
    return float((a * b).mean() / math.sqrt(math.prod(map(float, variances))))
