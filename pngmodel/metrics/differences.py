"""Noise as the metrics see it: checked, in one precision, as unit differences or as integer levels."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.errors import UserError

PEAK = 255
_SMALLEST = 16  # pixels a side; below it lags, windows and halves run out of pixels


def check_images(**images: Tensor) -> None:
    """Refuse anything but images of one shape (C, H, W), at least 16 x 16.

    Raises:
        UserError: another number of axes, too small, shapes that differ, or values that are not finite.
    """
    (first, image), *others = images.items()
    if image.dim() != 3 or min(image.shape[-2:]) < _SMALLEST:
        raise UserError(
            f"metrics: {first} has shape {tuple(image.shape)}; give (C, H, W) of at least {_SMALLEST} x {_SMALLEST}"
        )
    for name, other in others:
        if other.shape != image.shape:
            raise UserError(f"metrics: {name} has shape {tuple(other.shape)} but {first} has {tuple(image.shape)}")
    for name, any_image in images.items():
        if any_image.is_floating_point() and not bool(torch.isfinite(any_image).all()):
            raise UserError(f"metrics: {name} holds NaN or infinite values; a figure of it would mean nothing")


def unit_noise(image: Tensor, clean: Tensor) -> Tensor:
    """Noise (C, H, W) in [-1, 1], float32: the image clamped to [0, 1], NOT rounded, minus the clean one.

    Both are brought to float32 before they are subtracted. In mixed precision equal pixels would differ by
    1e-9 and fall on either side of a bin edge.
    """
    return image.float().clamp(0, 1) - clean.float().clamp(0, 1)


def to_levels(image: Tensor) -> Tensor:
    """8-bit levels 0..255 as int64, clamped and rounded to nearest even."""
    return (image.float().clamp(0, 1) * PEAK).round().long()


def level_noise(image: Tensor, clean: Tensor) -> Tensor:
    """Noise (C, H, W) in whole 8-bit levels, int64 in [-255, 255]."""
    return to_levels(image) - to_levels(clean)


def on_levels(image: Tensor) -> bool:
    """True for an image whose every value is a whole 8-bit level (up to float32 rounding)."""
    scaled = image.float() * PEAK
    return bool(torch.all((scaled - scaled.round()).abs() < 1e-3))
