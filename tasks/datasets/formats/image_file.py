"""Decode image files: PNG, JPEG, BMP and one-page TIFF, grey and RGB, bit depth kept."""

from __future__ import annotations

import io
import struct
from pathlib import PurePosixPath

import imagecodecs
import numpy as np
from PIL import Image

from pngmodel.errors import UserError
from tasks.datasets.formats import tiff_pages as tiffpages
from tasks.datasets.formats.archives import read_whole
from tasks.datasets.formats.limits import DEFLATED, as_image, check_bytes, check_packed, check_size
from tasks.stores.shard_file import Pixels

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
EXTENSIONS = tuple(_KINDS)
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
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
        raise UserError(f"{name}: is not an image ({expected or 'PNG, JPEG, BMP or TIFF'} expected); fetch it again")
    if expected is not None and kind != expected:
        # Where a lossless file is expected a JPEG in disguise would be noise that no camera made.
        raise UserError(f"{name}: is a {kind} file, its name says {expected}; rename or replace it")
    try:
        pixels: Pixels = {"PNG": _png, "JPEG": _jpeg, "BMP": _bmp, "TIFF": tiffpages.single}[kind](content, name)
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever strangers' bytes lead them to
        raise UserError(f"{name}: is truncated or not an image ({error}); fetch it again") from None
    return as_image(pixels, name)


def _png(content: bytes, name: str) -> Pixels:
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    check_size(name, (height, width, 3 if colour == 2 else 1), 2 if depth == 16 else 1)
    if colour not in (0, 2):
        kind = _PNG_COLOURS.get(colour, f"colour type {colour}")
        raise UserError(f"{name}: PNG with {kind}; convert it to grey or RGB first")
    if depth not in (8, 16):
        raise UserError(f"{name}: PNG of {depth} bits a value; 8 and 16 are read")
    check_packed(name, height * width * (3 if colour == 2 else 1) * depth // 8, len(content), DEFLATED)
    chunks = _png_chunks(content)
    if b"IEND" not in chunks:
        raise UserError(f"{name}: is truncated (a PNG without its end); fetch it again")
    if b"tRNS" in chunks:
        raise UserError(f"{name}: PNG with a transparent colour; drop the transparency first")
    if (location := chunks.get(b"eXIf")) is not None:
        exif = Image.Exif()
        exif.load(content[location])
        _check_upright(exif, name, "rotate the pixels and drop the tag")
    pixels: Pixels = imagecodecs.png_decode(content)
    return pixels


def _png_chunks(content: bytes) -> dict[bytes, slice]:
    """Kinds of the whole chunks up to the end of the picture, and where the data of the last of each lie."""
    found: dict[bytes, slice] = {}
    location = 8
    while location + 12 <= len(content) and b"IEND" not in found:
        length, kind = struct.unpack(">I4s", content[location : location + 8])
        data = slice(location + 8, location + 8 + length)
        location += 12 + length
        if location <= len(content):
            found[kind] = data
    return found


def _check_upright(exif: Image.Exif, name: str, remedy: str) -> None:
    if (orientation := exif.get(_ORIENTATION, 1)) != 1:
        raise UserError(f"{name}: its EXIF orientation is {orientation}, so its pixels are not upright; {remedy}")


def _jpeg(content: bytes, name: str) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        check_size(name, (image.height, image.width, len(image.getbands())))
        if image.mode not in ("L", "RGB"):
            raise UserError(f"{name}: pixel mode {image.mode} is not supported; convert it to grey or RGB first")
        _check_upright(image.getexif(), name, "rotate the pixels without loss (jpegtran) and drop the tag")
        return np.asarray(image)


def _bmp(content: bytes, name: str) -> Pixels:
    start, header, width, height, _, depth, compression = struct.unpack("<IIiiHHI", content[10:34])
    if header < 40 or depth not in (8, 24) or compression != 0:
        raise UserError(f"{name}: BMP that is not 8 bits grey or 24 bits RGB, uncompressed; convert it to PNG first")
    check_size(name, (abs(height), abs(width), depth // 8))
    if len(content) < start + abs(height) * ((depth * width + 31) // 32 * 4):  # rows are padded to four bytes
        raise UserError(f"{name}: is truncated; fetch it again")
    with Image.open(io.BytesIO(content), formats=["BMP"]) as image:
        if image.mode not in ("L", "RGB"):
            raise UserError(f"{name}: BMP with a palette; convert it to grey or RGB first")
        return np.asarray(image)


def read_image(url: str) -> Pixels:
    """Fetch and :func:`decode` an image file."""
    return decode(read_whole(url), url)
