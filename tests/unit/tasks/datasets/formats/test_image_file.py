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
from tasks.datasets.formats.image_file import decode, read_image


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(pixels: np.ndarray, *, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG by its specification alone: any depth, rows unfiltered, extra chunks before the picture."""
    height, width, channels = pixels.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first row, first column, and steps of each pass
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    stored = pixels.astype(">u2" if pixels.dtype == np.uint16 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in stored[y::dy, x::dx] if row.size)
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * pixels.itemsize, 2 if channels == 3 else 0, 0, 0, int(interlaced)
    )
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("end", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_keep_every_level(pair: Callable, end: str, dtype: str, channels: int) -> None:
    pixels = pair(3, 20, 28, channels, dtype)[0]
    flat = pixels[..., 0] if channels == 1 else pixels
    decoded = decode(raw_png(pixels) if end == ".png" else tiff(flat), f"x{end}")
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_interlaced_png_is_the_same_picture(pair: Callable, dtype: str, channels: int) -> None:
    pixels = pair(3, 21, 29, channels, dtype)[0]
    np.testing.assert_array_equal(decode(raw_png(pixels, interlaced=True), "x.png"), pixels)


def test_metadata_does_not_change_levels(pair: Callable) -> None:
    pixels = pair(3, 20, 28, 3, "uint16")[0]
    before = b"".join(
        [
            chunk(b"gAMA", struct.pack(">I", 100000)),
            chunk(b"sBIT", b"\x0c\x0c\x0c"),
            chunk(b"tEXt", b"Comment\0tRNS IEND"),
            chunk(b"iTXt", b"x\0\0\0\0\0" + b"y" * 9000),
        ]
    )
    np.testing.assert_array_equal(decode(raw_png(pixels, before=before), "x.png"), pixels)
    np.testing.assert_array_equal(decode(raw_png(pixels) + b"appended by some tool", "x.png"), pixels)


def test_a_transparent_colour_is_found_behind_long_metadata(pair: Callable) -> None:
    before = chunk(b"iTXt", b"x\0\0\0\0\0" + b"y" * 9000) + chunk(b"tRNS", b"\0" * 6)
    with pytest.raises(UserError, match=r"x\.png: PNG with a transparent colour"):
        decode(raw_png(pair(3, 20, 28)[0], before=before), "x.png")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_png_may_say_that_it_is_turned_too(pair: Callable, byteorder: str) -> None:
    pixels = pair(3, 20, 28)[0]

    def turned(orientation: int) -> bytes:
        head = b"II*\0" if byteorder == "<" else b"MM\0*"
        tag = struct.pack(f"{byteorder}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        return raw_png(pixels, before=chunk(b"eXIf", head + tag))

    np.testing.assert_array_equal(decode(turned(1), "x.png"), pixels)
    with pytest.raises(UserError, match=r"x\.png: its EXIF orientation is 6"):
        decode(turned(6), "x.png")


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
        ("alpha.png", png(np.zeros((8, 8, 3), np.uint8), "RGBA"), "RGB with alpha"),
        ("palette.png", png(np.zeros((8, 8, 3), np.uint8), "P"), "palette"),
        ("bits.png", png(np.zeros((8, 8), np.uint8), "1"), "1 bits a value"),
        ("grey.png", png(np.zeros((8, 8), np.uint8), "LA"), "grey with alpha"),
        ("half.tif", tiff(np.zeros((8, 8), np.float16)), "float16"),
        ("cmyk.jpg", jpeg(np.zeros((8, 8, 4), np.uint8), "CMYK"), "CMYK"),
        (
            "turned.jpg",
            jpeg(
                np.zeros((8, 8, 3), np.uint8),
                exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
            ),
            "orientation is 6",
        ),
        ("fake.png", jpeg(np.zeros((8, 8, 3), np.uint8)), "is a JPEG file, its name says PNG"),
        ("fake.tif", png(np.zeros((8, 8), np.uint8)), "is a PNG file, its name says TIFF"),
        ("bits.tif", tiff(np.zeros((8, 8), bool), photometric="minisblack"), "bool"),
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


def bmp(pixels: np.ndarray, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [24, 27])
def test_bmp_keeps_every_level(pair: Callable, channels: int, width: int) -> None:
    pixels = pair(3, 20, width, channels)[0]
    content = bmp(pixels[..., 0] if channels == 1 else pixels)
    np.testing.assert_array_equal(decode(content, "x.bmp"), pixels)
    for length in range(0, len(content), 7):
        with pytest.raises(UserError, match=r"x\.bmp: is (empty|not an image|truncated)"):
            decode(content[:length], "x.bmp")


def test_other_bmp_is_refused(pair: Callable) -> None:
    pixels = pair(3, 20, 28)[0]
    for mode in ("P", "RGBA", "1"):
        with pytest.raises(UserError, match=r"x\.bmp: BMP (with a palette|that is not 8 bits)"):
            decode(bmp(pixels, mode), "x.bmp")
    content = bytearray(bmp(pixels))
    content[30] = 1  # run lengths
    with pytest.raises(UserError, match=r"x\.bmp: BMP that is not 8 bits.*uncompressed"):
        decode(bytes(content), "x.bmp")
    content[30], content[18:26] = 0, struct.pack("<ii", 1 << 30, -(1 << 30))
    with pytest.raises(UserError, match=r"x\.bmp: its header promises"):
        decode(bytes(content), "x.bmp")
    with pytest.raises(UserError, match=r"x\.png: is a BMP file"):
        decode(bmp(pixels), "x.png")
