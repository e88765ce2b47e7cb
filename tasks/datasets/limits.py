"""What an image may be: bounds that stop decompression bombs before anything is decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pngmodel.errors import UserError

Pixels = NDArray[Any]
"""(H, W, C) levels: uint8, uint16 or float32."""

MAX_PIXELS = 178_956_970
"""Of one image; also where Pillow draws the line."""
_MAX_FILE_BYTES = 2 << 30


def check_size(name: str, shape: tuple[int, ...], itemsize: int = 1) -> None:
    """Refuse an image of ``shape`` that is larger than anything a camera makes.

    Raises:
        UserError: naming the file.
    """
    if int(np.prod(shape, dtype=np.int64)) > 4 * MAX_PIXELS or itemsize > 8:
        raise UserError(f"{name}: its header promises {' x '.join(map(str, shape))} values, more than is read here")


def check_bytes(name: str, size: int) -> None:
    """Refuse an image file (or archive member, unpacked) that is larger than any image."""
    if size > _MAX_FILE_BYTES:
        raise UserError(f"{name}: {size / 1e9:.1f} GB in one image file, more than is read here")
