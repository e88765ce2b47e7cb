"""Image files: bit depth kept, anything else refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pngmodel.errors import UserError
from tasks.datasets.imagefile import decode, read_image


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow cannot write: unfiltered rows."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# 16-bit colour PNG is refused, see below.
@pytest.mark.parametrize(
    ("end", "dtype", "channels"),
    [
        (end, dtype, channels)
        for end in (".png", ".tif", ".TIFF")
        for dtype in ("uint8", "uint16")
        for channels in (1, 3)
        if (end, dtype, channels) != (".png", "uint16", 3)
    ],
)
def test_lossless_formats_keep_every_level(pair: Callable, end: str, dtype: str, channels: int) -> None:
    pixels = pair(3, 20, 28, channels, dtype)[0]
    flat = pixels[..., 0] if channels == 1 else pixels
    decoded = decode(png(flat) if end == ".png" else tiff(flat), f"x{end}")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)


def test_16_bit_colour_png_is_not_cut_to_8_bits_silently(pair: Callable) -> None:
    content = png_of_16_bits(pair(0, 8, 8, 3, "uint16")[0])
    assert Image.open(io.BytesIO(content)).size == (8, 8)
    with pytest.raises(UserError, match=r"deep\.png.*16 bits.*TIFF"):
        decode(content, "deep.png")


def test_jpeg_comes_close(pair: Callable, save: Callable, tmp_path: Path) -> None:
    pixels = pair(0, 32, 32)[1]
    save(tmp_path / "x.jpg", pixels)
    decoded = read_image(str(tmp_path / "x.jpg"))
    assert decoded.shape == (32, 32, 3)
    assert np.abs(decoded.astype(int) - pixels).mean() < 6


@pytest.mark.parametrize("kind", ["png", "png16", "jpg", "tif", "deflated tif"])
def test_every_truncation_is_found(pair: Callable, kind: str) -> None:
    pixels = pair(1, 24, 24)[0]
    if kind == "jpg":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        content = buffer.getvalue()[:-2]  # without the end marker all pixels are there still
    elif kind == "png16":
        content = png(pair(1, 24, 24, 1, "uint16")[0][..., 0])[:-16]  # likewise IEND and the checksum before it
    elif kind == "png":
        content = png(pixels)[:-16]
    else:
        content = tiff(pixels, compression="zlib" if kind == "deflated tif" else None)
    name = f"some.{kind[:3].split()[-1]}" if "tif" not in kind else "some.tif"
    lengths = [*range(0, len(content) - 20, max(1, len(content) // 40)), len(content) - 20]
    for length in lengths:
        with pytest.raises(UserError, match=r"some\."):
            decode(content[:length], name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "empty"),
        ("text.png", b"this is no image at all", "not an image"),
        ("text.tif", b"this is no image at all", "not an image"),
        ("alpha.png", png(np.zeros((8, 8, 3), np.uint8), "RGBA"), "RGBA"),
        ("palette.png", png(np.zeros((8, 8, 3), np.uint8), "P"), "mode P"),
        ("bits.png", png(np.zeros((8, 8), np.uint8), "1"), "mode 1"),
        ("float.tif", tiff(np.zeros((8, 8), np.float32)), "float32"),
        ("signed.tif", tiff(np.zeros((8, 8), np.int16)), "int16"),
        ("alpha.tif", tiff(np.zeros((8, 8, 4), np.uint8), photometric="rgb"), r"\(8, 8, 4\)"),
        ("pages.tif", tiff(np.zeros((3, 16, 16), np.uint8), photometric="minisblack"), "3 pages"),
        ("inverted.tif", tiff(np.zeros((8, 8), np.uint8), photometric="miniswhite"), "MINISWHITE"),
        (
            "palette.tif",
            tiff(np.zeros((8, 8), np.uint8), photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
            "PALETTE",
        ),
    ],
)
def test_what_cannot_be_used_is_named(name: str, content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        decode(content, name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png"):
        read_image(str(tmp_path / "gone.png"))
