"""Domain randomisation: random resampling, tone changes and JPEG compression of real pairs.

Resampling and tone changes apply to both images of a pair; JPEG compression applies to the noisy image only.
"""

from __future__ import annotations

import math

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.training.settings import Randomisation

_MAX_8BIT = 255


def source_side(side: int, factor: float) -> int:
    """Return the side of a crop that has ``side`` pixels after resampling by ``factor``."""
    return max(1, round(side / factor))


def draw_factor(settings: Randomisation | None, g: torch.Generator) -> float | None:
    """Draw the resampling factor of a region, log-uniform in its range; None if the region is not randomised."""
    if settings is None or float(torch.rand((), generator=g)) >= settings.share:
        return None
    return _log_uniform(settings.resample, g)


def randomise(
    noisy: Tensor, clean: Tensor, side: int, settings: Randomisation, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Randomise a pair (3, H, W) in [0, 1].

    Returns:
        The pair resampled to (3, side, side), with random gain and gamma, rounded to 8 bits; the noisy image is JPEG
        compressed with probability ``settings.jpeg``.
    """
    gain, gamma = _log_uniform(settings.gain, g), _log_uniform(settings.gamma, g)

    def changed(image: Tensor) -> Tensor:
        if image.shape[-2:] != (side, side):
            image = F.interpolate(image[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[
                0
            ]
        image = (gain * image.clamp(0, 1) ** gamma).clamp(0, 1)
        # Round to 8 bits, as a camera or an editor would store the image.
        return (image * _MAX_8BIT).round() / _MAX_8BIT

    noisy, clean = changed(noisy), changed(clean)
    if float(torch.rand((), generator=g)) < settings.jpeg:
        low, high = settings.jpeg_quality
        noisy = _jpeg_compressed(noisy, int(torch.randint(low, high + 1, (), generator=g)))
    return noisy, clean


def _log_uniform(limits: tuple[float, float], g: torch.Generator) -> float:
    low, high = (math.log(limit) for limit in limits)
    return math.exp(low + (high - low) * float(torch.rand((), generator=g)))


def _jpeg_compressed(image: Tensor, quality: int) -> Tensor:
    pixels = (image * _MAX_8BIT).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    decoded = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=quality))
    return torch.from_numpy(np.moveaxis(np.asarray(decoded), -1, 0).astype(np.float32) / np.float32(_MAX_8BIT))
