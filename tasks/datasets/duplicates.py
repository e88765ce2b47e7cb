"""The same shot stored twice: equal pixels, or the same noise under another encoding.

Two shots of one scene are no duplicates: their noise is independent. One shot saved again (JPEG, brightened) keeps
its noise, so residuals of equal places are compared and not pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 32
_BORDER = 2  # of the middle: its means lack neighbours, which makes a frame that all smooth places share
_INNER = _SIDE - 2 * _BORDER
_NEAR, _NEARER = 0.6, 0.85
"""Correlation of 784 residuals from which two shots are one: where noise is strong, and elsewhere.

Independent shots of different scenes stay below .2 on real data. Those of one scene share what JPEG and rounding do to
it: up to .83 in simulations with one grey level of noise, below .55 with three. One shot saved again as JPEG of quality
95 keeps .8 to .98, of quality 90 mostly .65 to .95; weaker copies are not found.
"""
_STRONG = 3.0  # grey levels of 8 bits
_FAINT = 0.75
_FEWEST = 0.1
_BLOCK = 2048
_WINDOW = 49 * _BLOCK
_SCALE = 24.0  # int8 steps per standard deviation

FINGERPRINT_BYTES = _INNER * _INNER + 1
"""The last byte tells whether the noise is strong enough for :data:`_NEAR`."""


def fingerprint(noisy: NDArray[Any] | None, clean: NDArray[Any] | None) -> bytes:
    """The fine structure in the middle of an image as int8: of the noise, or of the only side that there is.

    All zeros when there is none (a flat or saturated place, or an image smaller than 32 x 32) or too little: of a
    single image the steps of a gradient, which all skies share.
    """
    noise = _middle(noisy if noisy is not None else clean)
    if noise is None:
        return bytes(FINGERPRINT_BYTES)
    if noisy is not None and clean is not None:
        scene = _middle(clean)
        assert scene is not None  # both sides have one shape
        # A clean side in another brightness scale would leave the scene in the residual of every shot.
        spread = float(((scene - scene.mean()) ** 2).sum())
        slope = float(((noise - noise.mean()) * (scene - scene.mean())).sum()) / spread if spread > 0 else 0.0
        noise = noise - slope * scene
    fine = (noise - _blurred(noise))[_BORDER:-_BORDER, _BORDER:-_BORDER]
    level = float(fine.std())
    if level < 1e-6:
        little = True
    elif noisy is not None and clean is not None:
        little = _is_coding(fine, level, clean.dtype)
    else:
        little = level < _FAINT / 255 * _peak(noisy if noisy is not None else clean)
    if little:
        return bytes(FINGERPRINT_BYTES)
    steps: NDArray[np.int8] = np.clip(np.rint(fine / level * _SCALE), -127, 127).astype(np.int8)
    strong = noisy is not None and clean is not None and (clean.dtype != np.uint8 or level > _STRONG)
    return steps.tobytes() + bytes([strong])


def _is_coding(fine: NDArray[np.float32], level: float, dtype: np.dtype[Any]) -> bool:
    """Whether residuals say more of rounding and JPEG, which repeat from shot to shot, than of noise, which does not.

    They do below a grey level of 8 bits, and where a few pixels hold all of them (a coefficient that flipped).
    """
    spread = float((fine**2).mean() ** 2 / (fine**4).mean())  # 1/3 for normal noise, little for a few spikes
    return spread < _FEWEST or (dtype == np.uint8 and level < _FAINT)


def _peak(image: NDArray[Any] | None) -> float:
    """The level that stands for white, about."""
    assert image is not None
    return float(np.iinfo(image.dtype).max if image.dtype.kind == "u" else image.max())


def _middle(image: NDArray[Any] | None) -> NDArray[np.float32] | None:
    if image is None or min(image.shape[:2]) < _SIDE:
        return None
    y, x = ((n - _SIDE) // 2 for n in image.shape[:2])
    grey: NDArray[np.float32] = image[y : y + _SIDE, x : x + _SIDE].astype(np.float32).mean(axis=-1)
    return grey


def _blurred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 5 x 5 pixels, borders repeated."""
    padded = np.pad(grey, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    means: NDArray[np.float32] = windows.mean(axis=(-2, -1))
    return means


def near_duplicates(prints: Sequence[bytes]) -> dict[int, tuple[int, float]]:
    """For each later one of a near-equal couple: (index of the earlier one, correlation).

    Every couple is compared up to 100 000 images (20 000 take ten seconds on one core); in larger sets each image
    with as many before it, so that the time grows in proportion.
    """
    if not prints:
        return {}
    table = np.frombuffer(b"".join(prints), np.int8).reshape(len(prints), FINGERPRINT_BYTES)
    rows, limits = table[:, :-1], np.where(table[:, -1] == 1, _NEAR, _NEARER)
    found: dict[int, tuple[int, float]] = {}
    for start in range(0, len(rows), _BLOCK):
        block = _unit(rows[start : start + _BLOCK])
        for other in range(max(0, start - _WINDOW), start + 1, _BLOCK):
            likeness = block @ _unit(rows[other : other + _BLOCK]).T
            pair_limits = np.maximum.outer(limits[start : start + _BLOCK], limits[other : other + _BLOCK])
            later, earlier = np.nonzero(likeness > pair_limits)
            for i, j in zip((later + start).tolist(), (earlier + other).tolist(), strict=True):
                if j < i and i not in found and j not in found:
                    found[i] = (j, float(likeness[i - start, j - other]))
    return found


def _unit(rows: NDArray[np.int8]) -> NDArray[np.float32]:
    """Rows of length 1; empty ones stay empty."""
    whole = rows.astype(np.float32)
    norms = np.linalg.norm(whole, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(whole, norms, out=np.zeros_like(whole), where=norms > 0)
    return unit
