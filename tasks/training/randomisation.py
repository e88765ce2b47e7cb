"""Domain randomisation: a real pair changed as another camera, another lens or another program might have changed it.

Both images go through the same change, so that the pair stays a pair; only JPEG is for the noisy side alone.
"""

from __future__ import annotations

import math

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.training.settings import Randomisation

_LEVELS = 255


def source_side(side: int, factor: float) -> int:
    """Pixels that become ``side`` pixels when they are resampled by ``factor``."""
    return max(1, round(side / factor))


def draw_factor(settings: Randomisation | None, g: torch.Generator) -> float | None:
    """Resampling factor of the next region, log-uniform in its range; None: this region is not changed at all."""
    if settings is None or float(torch.rand((), generator=g)) >= settings.share:
        return None
    return _log_uniform(settings.resample, g)


def randomised(
    noisy: Tensor, clean: Tensor, side: int, settings: Randomisation, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pair (3, H, W) in [0, 1], resampled to (3, side, side) and changed in tone; on 8-bit levels again."""
    gain, gamma = _log_uniform(settings.gain, g), _log_uniform(settings.gamma, g)

    def changed(image: Tensor) -> Tensor:
        if image.shape[-2:] != (side, side):
            image = F.interpolate(image[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[
                0
            ]
        image = (gain * image.clamp(0, 1) ** gamma).clamp(0, 1)
        # Levels again: what a camera or an editor would have stored.
        return (image * _LEVELS).round() / _LEVELS

    noisy, clean = changed(noisy), changed(clean)
    if float(torch.rand((), generator=g)) < settings.jpeg:
        low, high = settings.jpeg_quality
        noisy = _saved_as_jpeg(noisy, int(torch.randint(low, high + 1, (), generator=g)))
    return noisy, clean


def _log_uniform(limits: tuple[float, float], g: torch.Generator) -> float:
    low, high = (math.log(limit) for limit in limits)
    return math.exp(low + (high - low) * float(torch.rand((), generator=g)))


def _saved_as_jpeg(image: Tensor, quality: int) -> Tensor:
    levels = (image * _LEVELS).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    back = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(levels, level=quality))
    return torch.from_numpy(np.moveaxis(np.asarray(back), -1, 0).astype(np.float32) / np.float32(_LEVELS))
