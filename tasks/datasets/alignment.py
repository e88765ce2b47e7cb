"""Alignment check of a pair: cross-correlation of the edges of both images in a central window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WINDOW = 512  # pixels; enough texture, and fast compared with decoding
_MIN_CORRELATION = 0.1  # normalised correlation below which edges are too weak to estimate a shift
_CHANCE = 12.0  # divided by the side of the window: above the correlation of unrelated edges (measured up to 10)
_MIN_RATIO = 1.15  # required correlation with the shift relative to that without it


@dataclass(frozen=True)
class Alignment:
    """Shift of the noisy relative to the clean image in pixels, and normalised edge correlations in [0, 1]."""

    dy: int
    dx: int
    shifted: float
    unshifted: float
    chance: float = 0.0  # maximum correlation of unrelated edges in an image of this size

    def moved(self, tolerance: float) -> bool:
        """Return whether the images are clearly shifted by more than ``tolerance`` pixels."""
        clear = self.shifted > max(_MIN_CORRELATION, self.chance)
        clear = clear and self.shifted > _MIN_RATIO * max(self.unshifted, 0.0)
        return clear and max(abs(self.dy), abs(self.dx)) > tolerance


def align(noisy: NDArray[Any], clean: NDArray[Any]) -> Alignment:
    """Estimate the shift between two images (H, W, C) of equal shape.

    Uses the normalised circular cross-correlation of horizontal and vertical differences under a Hann window.
    Differences remove the brightness, in which the images of a valid pair may differ.
    """
    height, width = clean.shape[:2]
    y, x = max(0, (height - _WINDOW) // 2), max(0, (width - _WINDOW) // 2)
    square = np.s_[y : y + _WINDOW, x : x + _WINDOW]
    a, b = (_edges(image[square].astype(np.float32).mean(axis=-1)) for image in (noisy, clean))
    power = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if power == 0.0:
        return Alignment(0, 0, 0.0, 0.0)
    correlation = np.fft.irfft2(
        (np.fft.rfft2(a, axes=(-2, -1)) * np.conj(np.fft.rfft2(b, axes=(-2, -1)))).sum(axis=0), s=a.shape[-2:]
    )
    dy, dx = (int(k) for k in np.unravel_index(int(correlation.argmax()), correlation.shape))
    rows, columns = correlation.shape
    return Alignment(
        dy - rows if dy > rows // 2 else dy,
        dx - columns if dx > columns // 2 else dx,
        float(correlation[dy, dx]) / power,
        float(correlation[0, 0]) / power,
        _CHANCE / float(np.sqrt(rows * columns)),
    )


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vertical and horizontal differences of an image (H, W) as (2, H, W), tapered to zero at the borders."""
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1])).astype(np.float32)
    dy = np.diff(grey, axis=0, append=grey[-1:]) * window
    dx = np.diff(grey, axis=1, append=grey[:, -1:]) * window
    return np.stack([dy, dx])
