"""Are the two images of a pair aligned? Cross-correlation of their edges over a window in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WINDOW = 512  # pixels; enough for any texture, small beside decoding
_CONVINCING = 0.1  # normalised correlation below which edges are too weak to say anything
_CHANCE = 12.0  # over the window's side: what unrelated edges do not reach anywhere by chance (measured up to 10)
_BETTER = 1.15  # how much better than no shift a shift has to explain the edges


@dataclass(frozen=True)
class Alignment:
    """Shift of the noisy image against the clean one, whole pixels, and how well each explains the edges (0 to 1)."""

    dy: int
    dx: int
    shifted: float
    unshifted: float
    chance: float = 0.0  # what edges that have nothing in common reach somewhere in an image of this size

    def moved(self, tolerance: float) -> bool:
        """Whether the images are convincingly further apart than ``tolerance`` pixels."""
        clear = self.shifted > max(_CONVINCING, self.chance) and self.shifted > _BETTER * max(self.unshifted, 0.0)
        return clear and max(abs(self.dy), abs(self.dx)) > tolerance


def align(noisy: NDArray[Any], clean: NDArray[Any]) -> Alignment:
    """Estimate the shift between two images (H, W, C) of equal shape.

    Normalised circular cross-correlation of horizontal and vertical differences under a Hann window; differences
    take away brightness, which the two sides of a pair may rightly have in other scale.
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
    """Both differences of an image (H, W) as (2, H, W), tapered to zero at the borders."""
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1])).astype(np.float32)
    dy = np.diff(grey, axis=0, append=grey[-1:]) * window
    dx = np.diff(grey, axis=1, append=grey[:, -1:]) * window
    return np.stack([dy, dx])
