"""Detection of duplicates: the same shot stored twice, with the same noise under another encoding.

Two shots of a scene are not duplicates, because their noise is independent. A shot that is saved again (as JPEG, or
brightened) keeps its noise, so the residuals at equal positions are compared instead of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 32
_BORDER = 2  # box means at the border lack neighbours, which gives all smooth regions a common frame
_INNER = _SIDE - 2 * _BORDER
_STRONG_THRESHOLD, _WEAK_THRESHOLD = 0.6, 0.85
"""Correlation of 784 residuals above which two shots are duplicates, for strong and for weak noise.

Independent shots of different scenes stay below 0.2 on real data. Shots of one scene share the effects of JPEG and
rounding: up to 0.83 in simulations with a noise standard deviation of one digital number, below 0.55 with three. A shot
saved again as JPEG of quality 95 keeps 0.8 to 0.98, of quality 90 mostly 0.65 to 0.95; weaker copies are not detected.
"""
_STRONG_NOISE = 3.0  # digital numbers of 8 bits
_MIN_NOISE = 0.75  # digital numbers of 8 bits
_MIN_SPREAD = 0.1
_BLOCK = 2048
_WINDOW = 49 * _BLOCK
_SCALE = 24.0  # int8 steps per standard deviation

FINGERPRINT_BYTES = _INNER * _INNER + 1
"""The last byte is 1 if the noise is strong enough for :data:`_STRONG_THRESHOLD`."""


def fingerprint(noisy: NDArray[Any] | None, clean: NDArray[Any] | None) -> bytes:
    """Return the fine structure at the centre of the noise, or of the only image, quantised to int8.

    Returns zeros if there is not enough structure: flat or saturated regions, images below 32 x 32 pixels, or gradients
    such as skies in a single image.
    """
    noise = _centre(noisy if noisy is not None else clean)
    if noise is None:
        return bytes(FINGERPRINT_BYTES)
    if noisy is not None and clean is not None:
        scene = _centre(clean)
        assert scene is not None  # both images have the same shape
        # Remove the scene by regression: a different brightness of the clean image would leave it in the residual.
        spread = float(((scene - scene.mean()) ** 2).sum())
        slope = float(((noise - noise.mean()) * (scene - scene.mean())).sum()) / spread if spread > 0 else 0.0
        noise = noise - slope * scene
    fine = (noise - _blurred(noise))[_BORDER:-_BORDER, _BORDER:-_BORDER]
    std = float(fine.std())
    if std < 1e-6:
        insufficient = True
    elif noisy is not None and clean is not None:
        insufficient = _is_coding_error(fine, std, clean.dtype)
    else:
        insufficient = std < _MIN_NOISE / 255 * _peak(noisy if noisy is not None else clean)
    if insufficient:
        return bytes(FINGERPRINT_BYTES)
    steps: NDArray[np.int8] = np.clip(np.rint(fine / std * _SCALE), -127, 127).astype(np.int8)
    strong = noisy is not None and clean is not None and (clean.dtype != np.uint8 or std > _STRONG_NOISE)
    return steps.tobytes() + bytes([strong])


def _is_coding_error(fine: NDArray[np.float32], std: float, dtype: np.dtype[Any]) -> bool:
    """Return whether residuals are mostly errors of rounding and JPEG, which repeat from shot to shot.

    This is assumed below 0.75 digital numbers, and if a few pixels dominate (a flipped JPEG coefficient).
    """
    spread = float((fine**2).mean() ** 2 / (fine**4).mean())  # inverse kurtosis: 1/3 for normal noise, small for spikes
    return spread < _MIN_SPREAD or (dtype == np.uint8 and std < _MIN_NOISE)


def _peak(image: NDArray[Any] | None) -> float:
    """Approximate white level of an image."""
    assert image is not None
    return float(np.iinfo(image.dtype).max if image.dtype.kind == "u" else image.max())


def _centre(image: NDArray[Any] | None) -> NDArray[np.float32] | None:
    if image is None or min(image.shape[:2]) < _SIDE:
        return None
    y, x = ((n - _SIDE) // 2 for n in image.shape[:2])
    grey: NDArray[np.float32] = image[y : y + _SIDE, x : x + _SIDE].astype(np.float32).mean(axis=-1)
    return grey


def _blurred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 5 x 5 pixels, with edge padding."""
    padded = np.pad(grey, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    means: NDArray[np.float32] = windows.mean(axis=(-2, -1))
    return means


def near_duplicates(prints: Sequence[bytes]) -> dict[int, tuple[int, float]]:
    """Find duplicates among fingerprints: {index of the later image: (index of the earlier image, correlation)}.

    Each image is compared with the 100 000 images before it, so that the time grows linearly for larger sets; 20 000
    images take ten seconds on one core.
    """
    if not prints:
        return {}
    table = np.frombuffer(b"".join(prints), np.int8).reshape(len(prints), FINGERPRINT_BYTES)
    rows, limits = table[:, :-1], np.where(table[:, -1] == 1, _STRONG_THRESHOLD, _WEAK_THRESHOLD)
    found: dict[int, tuple[int, float]] = {}
    for start in range(0, len(rows), _BLOCK):
        block = _unit(rows[start : start + _BLOCK])
        for other in range(max(0, start - _WINDOW), start + 1, _BLOCK):
            correlation = block @ _unit(rows[other : other + _BLOCK]).T
            pair_limits = np.maximum.outer(limits[start : start + _BLOCK], limits[other : other + _BLOCK])
            later, earlier = np.nonzero(correlation > pair_limits)
            for i, j in zip((later + start).tolist(), (earlier + other).tolist(), strict=True):
                if j < i and i not in found and j not in found:
                    found[i] = (j, float(correlation[i - start, j - other]))
    return found


def _unit(rows: NDArray[np.int8]) -> NDArray[np.float32]:
    """Normalise rows to unit length; zero rows stay zero."""
    whole = rows.astype(np.float32)
    norms = np.linalg.norm(whole, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(whole, norms, out=np.zeros_like(whole), where=norms > 0)
    return unit
