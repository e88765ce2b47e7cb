"""Decode image files: PNG, JPEG and one-page TIFF, grey and RGB, bit depth kept."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import PurePosixPath

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from pngmodel.errors import UserError
from tasks.datasets import tiffpages
from tasks.datasets.limits import Pixels, check_bytes, check_size
from tasks.stores.filesystem import file_size, read_bytes

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
EXTENSIONS = tuple(_KINDS)
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "a palette", 4: "grey with alpha", 6: "RGB with alpha"}
_ORIENTATION = 0x0112  # EXIF tag


def decode(content: bytes, name: str) -> Pixels:
    """An image as (H, W, C) uint8, uint16 or float32, C 1 or 3.

    Raises:
        UserError: truncated, not an image, or a kind of pixel that is not supported; names the file.
    """
    if not content:
        raise UserError(f"{name}: is empty; fetch it again")
    check_bytes(name, len(content))
    kind = next((k for signature, k in _SIGNATURES.items() if content.startswith(signature)), None)
    expected = _KINDS.get(PurePosixPath(name.split("::")[0]).suffix.lower())
    if kind is None:
        raise UserError(f"{name}: is not an image ({expected or 'PNG, JPEG or TIFF'} expected); fetch it again")
    if expected is not None and kind != expected:
        # Where a lossless file is expected a JPEG in disguise would be noise that no camera made.
        raise UserError(f"{name}: is a {kind} file, its name says {expected}; rename or replace it")
    try:
        pixels = {"PNG": _png, "JPEG": _jpeg, "TIFF": tiffpages.single}[kind](content, name)
    except UserError:
        raise
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        imagecodecs.PngError,
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        EOFError,
        struct.error,
        zlib.error,
        RuntimeError,
        MemoryError,
    ) as e:
        raise UserError(f"{name}: is truncated or not an image ({e}); fetch it again") from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _png(content: bytes, name: str) -> Pixels:
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    check_size(name, (height, width))
    if colour not in (0, 2):
        kind = _PNG_COLOURS.get(colour, f"colour type {colour}")
        raise UserError(f"{name}: PNG with {kind}; convert it to grey or RGB first")
    if depth not in (8, 16):
        raise UserError(f"{name}: PNG of {depth} bits a value; 8 and 16 are read")
    if b"IEND" not in content[-16:]:
        raise UserError(f"{name}: is truncated (a PNG without its end); fetch it again")
    if b"tRNS" in content[:4096]:
        raise UserError(f"{name}: PNG with a transparent colour; drop the transparency first")
    pixels: Pixels = imagecodecs.png_decode(content)
    return pixels


def _jpeg(content: bytes, name: str) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        if image.mode not in ("L", "RGB"):
            raise UserError(f"{name}: pixel mode {image.mode} is not supported; convert it to grey or RGB first")
        orientation = image.getexif().get(_ORIENTATION, 1)
        if orientation != 1:
            raise UserError(
                f"{name}: its EXIF orientation is {orientation}, so its pixels are not upright; "
                "rotate the pixels without loss (jpegtran) and drop the tag"
            )
        return np.asarray(image)


def read_image(url: str) -> Pixels:
    """Fetch and :func:`decode` an image file."""
    if "::" in url:  # a small archive may promise a huge member
        check_bytes(url, file_size(url))
    return decode(read_bytes(url), url)
