"""How hard a JPEG file was compressed, by its quantisation table: its blocks must not be taken for a clean image."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_JPEG = b"\xff\xd8\xff"
# ITU-T T.81, table K.1 (luminance), which libjpeg scales by its quality setting; sorted, as orders of storing differ.
_LUMINANCE = np.sort(
    np.fromstring(
        """
        16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55
        14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
        18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
        49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
        """,
        int,
        sep=" ",
    )
)


def jpeg_quality(content: bytes) -> int | None:
    """Quality, 1 to 100, on libjpeg's scale: the one whose luminance table is nearest. None: the file is no JPEG.

    Files of cameras have tables of their own; theirs is the quality of like strength.
    """
    if not content.startswith(_JPEG):
        return None
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        tables = image.quantization  # type: ignore[attr-defined]
    found = np.sort(np.asarray(tables[min(tables)], float))
    return int(np.argmin([np.abs(_table(quality) - found).sum() for quality in range(1, 101)])) + 1


def _table(quality: int) -> np.ndarray:
    """libjpeg's luminance table at a quality, sorted."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table: np.ndarray = np.clip((_LUMINANCE * int(scale) + 50) // 100, 1, 255)
    return table
