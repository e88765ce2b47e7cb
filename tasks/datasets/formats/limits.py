"""What an image may be: bounds that stop decompression bombs before anything is decoded, and kinds of pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pngmodel.errors import UserError
from tasks.stores.shard_file import DTYPES, Pixels

MAX_BYTES = 1 << 30
"""Of one image in memory: 179 megapixels of 16-bit RGB, where Pillow draws the line too."""
_MAX_FILE_BYTES = MAX_BYTES + (16 << 20)  # of which a file adds some to its pixels


DEFLATED = 1032
"""What one byte of deflate becomes at most (zlib's own figure)."""


class DamagedFileError(UserError):
    """Nothing in a container file can be read, whichever part is asked for."""


def check_size(name: str, shape: tuple[int, ...], itemsize: int = 1) -> None:
    """Refuse an image of ``shape`` that is larger than anything a camera makes.

    Raises:
        UserError: naming the file.
    """
    if math.prod(shape) * itemsize > MAX_BYTES:
        raise UserError(
            f"{name}: its header promises {' x '.join(map(str, shape))} values of {itemsize} bytes, more than is read "
            "here (1 GiB an image)"
        )


def check_packed(name: str, pixels: int, stored: int, most: int | None) -> None:
    """Refuse an image whose header promises more than its file can hold, before memory is taken for it.

    Args:
        name: of the file.
        pixels: bytes that are promised.
        stored: bytes of the file.
        most: bytes that one stored byte can become; None: any number.

    Raises:
        UserError: naming the file.
    """
    if most is not None and pixels > most * stored:
        raise UserError(
            f"{name}: is truncated (its header promises {pixels} bytes of pixels, more than {stored} bytes can hold); "
            "fetch it again"
        )


def check_bytes(name: str, size: int) -> None:
    """Refuse an image file (or archive member, unpacked) that is larger than any image."""
    if size > _MAX_FILE_BYTES:
        raise UserError(f"{name}: {size / 1e9:.1f} GB in one image file, more than is read here")


def as_image(pixels: NDArray[np.generic], name: str) -> Pixels:
    """Decoded pixels as (H, W, C) in a supported dtype of this machine's byte order.

    Raises:
        UserError: not grey or RGB, or another dtype; naming the file.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape:
        raise UserError(f"{name}: shape {pixels.shape} is not a grey or RGB image; split stacks and drop alpha first")
    if pixels.dtype == np.float64:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and told as that
            return pixels.astype(np.float32)
    native = pixels.dtype.newbyteorder("=")
    if str(native) not in DTYPES:
        raise UserError(f"{name}: dtype {pixels.dtype} is not supported; store one of {', '.join(DTYPES)}")
    return pixels.astype(native, copy=False)
