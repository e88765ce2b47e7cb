"""Decode image files: PNG, JPEG and TIFF, 8 and 16 bits, grey and RGB, bit depth kept."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pngmodel.errors import UserError
from tasks.stores.filesystem import read_bytes

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_TIFF = (".tif", ".tiff")
_PNG, _RGB_OF_16_BITS = b"\x89PNG\r\n\x1a\n", bytes([16, 2])  # signature; bit depth and colour type in the header
_TIFF_COLOURS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
_MODES = {"L", "RGB", "I;16", "I;16B", "I"}


def decode(content: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An image as (H, W, C) uint8 or uint16, C 1 or 3.

    Raises:
        UserError: truncated, not an image, or a pixel type that is not supported; names the file.
    """
    if not content:
        raise UserError(f"{name}: is empty; fetch it again")
    try:
        pixels = _tiff(content, name) if name.lower().endswith(_TIFF) else _pillow(content, name)
    except UserError:
        raise
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        tifffile.TiffFileError,
    ) as e:
        if "imagecodecs" in str(e):
            raise UserError(
                f"{name}: its TIFF compression is not supported; save it uncompressed or with deflate"
            ) from None
        raise UserError(f"{name}: is truncated or not an image ({e}); fetch it again") from None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise UserError(f"{name}: shape {pixels.shape} is not a grey or RGB image; split stacks and drop alpha first")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{name}: dtype {pixels.dtype} is not supported; store 8- or 16-bit unsigned integers")
    return pixels


def _pillow(content: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if content.startswith(_PNG) and content[24:26] == _RGB_OF_16_BITS:
        # Pillow drops the lower 8 bits without a word.
        raise UserError(f"{name}: is a PNG of 16 bits a colour, which cannot be read whole; store it as 16-bit TIFF")
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        mode = image.mode
        if mode not in _MODES:
            raise UserError(f"{name}: pixel mode {mode} is not supported; convert it to grey or RGB first")
        pixels = np.asarray(image)
    if mode == "I":  # Pillow widens 16-bit grey PNG to 32 bits in some versions
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _tiff(content: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if len(file.pages) != 1:
            raise UserError(f"{name}: holds {len(file.pages)} pages; one image per file is read here")
        page = file.pages.first
        if page.photometric not in _TIFF_COLOURS:
            kind = getattr(page.photometric, "name", page.photometric)
            raise UserError(f"{name}: TIFF of kind {kind} is not supported; convert it to grey or RGB first")
        return file.asarray()


def read_image(url: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Fetch and :func:`decode` an image file."""
    return decode(read_bytes(url), url)
