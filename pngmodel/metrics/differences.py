"""Noise of images for the metrics: validation, and differences in [-1, 1] or in digital numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.errors import UserError

PEAK = 255
_SMALLEST = 16  # pixels per side; needed for lags, windows and halves


def check_images(**images: Tensor) -> None:
    """Check that all images have the same shape (C, H, W), at least 16 x 16 pixels, and finite values.

    Raises:
        UserError: A check fails.
    """
    (first, image), *others = images.items()
    if image.dim() != 3 or min(image.shape[-2:]) < _SMALLEST:
        raise UserError(
            f"metrics: {first} has shape {tuple(image.shape)}; expected (C, H, W) with at least "
            f"{_SMALLEST} x {_SMALLEST} pixels"
        )
    for name, other in others:
        if other.shape != image.shape:
            raise UserError(
                f"metrics: {name} has shape {tuple(other.shape)}, but {first} has {tuple(image.shape)}; use images of "
                "the same shape"
            )
    for name, any_image in images.items():
        if any_image.is_floating_point() and not bool(torch.isfinite(any_image).all()):
            raise UserError(f"metrics: {name} has NaN or infinite values; use images with finite values")


def unit_noise(image: Tensor, clean: Tensor) -> Tensor:
    """Return noise (C, H, W) in [-1, 1], float32: the image, clamped to [0, 1] but not rounded, minus the clean image.

    Both images are converted to float32 first. In mixed precision, equal pixels would differ by 1e-9, which matters at
    bin edges.
    """
    return image.float().clamp(0, 1) - clean.float().clamp(0, 1)


def to_8bit(image: Tensor) -> Tensor:
    """Return digital numbers 0..255 as int64, clamped and rounded half to even."""
    return (image.float().clamp(0, 1) * PEAK).round().long()


def integer_noise(image: Tensor, clean: Tensor) -> Tensor:
    """Return noise (C, H, W) of images rounded to 8 bits, int64 in [-255, 255]."""
    return to_8bit(image) - to_8bit(clean)


def is_8bit(image: Tensor) -> bool:
    """Return whether all values of an image in [0, 1] are multiples of 1/255, up to float32 rounding."""
    scaled = image.float() * PEAK
    return bool(torch.all((scaled - scaled.round()).abs() < 1e-3))
