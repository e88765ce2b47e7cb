"""Broken and hostile files: each is a listed reject that names the file, and the good pairs are catalogued."""

from __future__ import annotations

import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

GOOD = ("good1", "good2")


@pytest.fixture
def good(tmp_path: Path, pair: Callable, save: Callable) -> Path:
    """A paired folder with two good pairs and room for others."""
    for seed, name in enumerate(GOOD):
        for side, image in zip(("noisy", "clean"), pair(seed, 64, 64), strict=True):
            save(tmp_path / "set" / side / f"{name}.png", image)
    return tmp_path / "set"


def peak() -> int:
    """Megabytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_header(width: int, height: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff_header(width: int, height: int, *, tile: int = 0) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8), (325, 4, 1, 8)] if tile else []
    tags += [] if tile else [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 8)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 16) + zlib.compress(b"")[:8] + struct.pack("<H", len(tags)) + body + bytes(4)


def broken_files(pair: Callable) -> dict[str, tuple[str, bytes, str]]:
    """By name: end of the file name, content of the noisy side, words of the reason."""
    import io

    def image(kind: str, pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels, mode).save(buffer, kind, **options)
        return buffer.getvalue()

    def tiff(pixels: np.ndarray, **options: object) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **options)
        return buffer.getvalue()

    noisy = pair(7, 64, 64)[0]
    unit = noisy.astype(np.float32) / 255
    nan, inf, negative = unit.copy(), unit.copy(), unit - 0.5
    nan[3, 4, 1], inf[0, 0, 0] = np.nan, np.inf
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0\0\0\0\0"
    png = image("PNG", noisy)
    return {
        "torn_png": ("png", png[: len(png) // 2], "truncated"),
        "torn_jpeg": ("jpg", image("JPEG", noisy)[:700], "truncated"),
        "torn_tiff": ("tif", tiff(noisy)[:5000], "truncated"),
        "zero_bytes": ("png", b"", "is empty"),
        "jpeg_as_png": ("png", image("JPEG", noisy), "is a JPEG file, its name says PNG"),
        "text_as_png": ("png", b"hello there", "is not an image"),
        "gif_as_png": ("png", image("GIF", noisy[..., 0]), "is not an image"),
        "palette": ("png", image("PNG", noisy[..., 0], "P"), "palette"),
        "alpha": ("png", image("PNG", np.dstack([noisy, noisy[..., :1]])), "RGB with alpha"),
        "transparent": ("png", image("PNG", noisy, transparency=(1, 2, 3)), "transparent colour"),
        "one_bit": ("png", image("PNG", noisy[..., 0] > 99), "1 bits a value"),
        "cmyk": ("jpg", image("JPEG", np.dstack([noisy, noisy[..., :1]]), "CMYK"), "CMYK"),
        "turned": ("jpg", image("JPEG", noisy, exif=exif), "EXIF orientation is 8"),
        "deep": ("png", imagecodecs.png_encode(noisy.astype(np.uint16) * 257), "is uint16, but clean"),
        "nan": ("tif", tiff(nan), "1 values that are NaN or infinite"),
        "inf": ("tif", tiff(inf), "1 values that are NaN or infinite"),
        "too_much_for_float32": ("tif", tiff(unit.astype(np.float64) * 1e300), "NaN or infinite"),
        "negative": ("tif", tiff(negative), "negative values"),
        "signed": ("tif", tiff(noisy.astype(np.int16)), "int16 is not supported"),
        "smaller": ("png", image("PNG", noisy[:-1]), "is (63, 64, 3), but clean"),
        "grey": ("png", image("PNG", noisy[..., 0]), "is (64, 64, 1), but clean"),
        "flat": ("png", image("PNG", np.full_like(noisy, 9)), "is constant (9 everywhere)"),
        "shifted": ("png", image("PNG", np.roll(noisy, (5, -7), (0, 1))), "shifted by (5, -7) pixels"),
        "same": ("png", image("PNG", pair(7, 64, 64)[1]), "noisy and clean image have the same pixels"),
        "png_bomb": ("png", png_header(60000, 60000), "more than is read here"),
        "png_bomb_2": ("png", png_header(26000, 26000), "more than is read here"),
        "png_lie": ("png", png_header(9000, 9000), "truncated"),
        "jpeg_bomb": ("jpg", jpeg_header(65000, 65000), ""),
        "tiff_bomb": ("tif", tiff_header(1 << 20, 1 << 20), "more than is read here"),
        "tiff_tile_bomb": ("tif", tiff_header(64, 64, tile=1 << 20), "more than is read here"),
        "tiff_lie": ("tif", tiff_header(9000, 9000), "truncated"),
        "tiff_loop": ("tif", b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 8) + bytes(40), ""),
        "only_a_signature": ("png", b"\x89PNG\r\n\x1a\n", "truncated"),
        "only_a_tiff_signature": ("tif", b"II*\0", "truncated"),
    }


def test_every_broken_file_is_told_and_the_rest_goes_on(
    good: Path, pair: Callable, save: Callable, ingested: Callable
) -> None:
    noisy, clean = pair(7, 64, 64)
    broken = broken_files(pair)
    for name, (end, content, _) in broken.items():
        (good / "noisy" / f"{name}.{end}").write_bytes(content)
        if name in ("nan", "inf", "negative", "too_much_for_float32"):
            tifffile.imwrite(good / "clean" / f"{name}.tif", clean.astype(np.float32) / 255)
        else:
            save(good / "clean" / f"{name}.png", clean)
    save(good / "noisy" / "alone.png", noisy)
    (good / "clean" / "folder.png").mkdir()
    save(good / "noisy" / "folder.png", noisy)
    before = peak()
    found = ingested(good, "folders")
    assert peak() - before < 700
    assert sorted(found.rows) == sorted(GOOD)
    assert set(found.reasons) == {*broken, "alone", "folder"}
    for name, (end, _, words) in broken.items():
        assert words in found.reasons[name], (name, found.reasons[name])
        if name not in ("shifted", "same"):
            assert f"{name}.{end}" in found.reasons[name], (name, found.reasons[name])


def test_colour_png_of_16_bits_is_read_where_both_sides_are(good: Path, pair: Callable, ingested: Callable) -> None:
    for side, image in zip(("noisy", "clean"), pair(5, 64, 64, 3, "uint16"), strict=True):
        (good / side / "deep.png").write_bytes(imagecodecs.png_encode(image))
    found = ingested(good, "folders")
    assert found.rows["deep"]["dtype"] == "uint16"
    images = dict(found.pixels("noisy"))
    np.testing.assert_array_equal(images["deep"], pair(5, 64, 64, 3, "uint16")[0])


def test_huge_finite_floats_are_no_levels(good: Path, pair: Callable, ingested: Callable) -> None:
    for side, image in zip(("noisy", "clean"), pair(5, 64, 64, 1, "uint16"), strict=True):
        tifffile.imwrite(good / side / "big.tif", (image[..., 0] * np.float32(5e33)))
    found = ingested(good, "folders")
    assert "at most 1e+12 is allowed" in found.reasons["big"]


def test_the_same_shot_twice_is_catalogued_once(good: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    for side in ("noisy", "clean"):
        shutil.copy(good / side / "good1.png", good / side / "twin.png")
        image = Image.open(good / side / "good2.png")
        image.save(good / side / "saved_again.jpg", quality=95)
    scene = pair(3, 64, 64)[1].astype(np.float64)
    rng = np.random.default_rng(0)
    for k in range(12):
        noisy = (scene + 6 * rng.standard_normal(scene.shape)).round().clip(0, 255).astype(np.uint8)
        save(good / "noisy" / f"repeat{k}.png", noisy)
        save(good / "clean" / f"repeat{k}.png", scene.astype(np.uint8))
    found = ingested(good, "folders")
    assert set(found.reasons) == {"twin", "saved_again"}
    assert found.reasons["twin"] == "has the same pixels as 'good1'"
    assert "the same noise as 'good2'" in found.reasons["saved_again"]
    assert len(found.rows) == 14


def matrix(shape: tuple[int, ...], size: int, name: bytes = b"ValidationNoisyBlocksSrgb") -> bytes:
    """A MATLAB 5 file that promises a uint8 array of ``shape`` in ``size`` bytes."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack("<II", 9, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    body += element(1, name) + struct.pack("<II", 2, size) + bytes(64)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, len(body)) + body


ABSURD = [
    (1 << 15, 1 << 16, 1, 1, 1),
    (1 << 16, 1 << 16, 1 << 16, 1 << 16, 16),
    (2, 2, 30000, 30000, 1),
    (-4, -4, 8, 8, 3),
    (0, 4, 8, 8, 3),
    (2, 2, 1 << 30, 1, 1),
]


@pytest.mark.parametrize("shape", ABSURD, ids=str)
def test_absurd_matlab_arrays_are_refused_quickly(tmp_path: Path, ingested: Callable, shape: tuple[int, ...]) -> None:
    from pngmodel.errors import UserError

    size = int(np.prod([float(n) for n in shape])) % (1 << 32)
    for name in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb"):
        (tmp_path / f"{name}.mat").write_bytes(matrix(shape, size, name.encode()))
    before = peak()
    with pytest.raises(UserError, match="ValidationNoisyBlocksSrgb"):
        ingested(tmp_path, "sidd-validation")
    assert peak() - before < 200


@pytest.mark.parametrize("shape", [(1 << 40, 8, 8, 3), (4, 1 << 20, 1 << 20, 3)], ids=str)
def test_absurd_hdf5_arrays_are_refused_quickly(tmp_path: Path, ingested: Callable, shape: tuple[int, ...]) -> None:
    from pngmodel.errors import UserError

    for name in ("siddplus_valid_noisy_srgb", "siddplus_valid_gt_srgb"):
        with h5py.File(tmp_path / f"{name}.mat", "w") as file:
            file.create_dataset(name, shape[::-1], "u1", chunks=(1, 8, 8, 4))
    before = peak()
    with pytest.raises(UserError, match=r"(more than is read here|at most 65536 blocks are supported)"):
        ingested(tmp_path, "sidd-plus")
    assert peak() - before < 200


@pytest.mark.parametrize("form", ["v5", "v5 packed", "v7.3"])
@pytest.mark.parametrize("keep", [0.0, 0.002, 0.4, 0.9])
def test_torn_block_sets_are_refused(
    tmp_path: Path, blocks: Callable, matlab73: Callable, ingested: Callable, form: str, keep: float
) -> None:
    from pngmodel.errors import UserError

    names = ("siddplus_valid_noisy_srgb", "siddplus_valid_gt_srgb")
    for name, array in zip(names, blocks(70), strict=True):
        if form == "v7.3":
            matlab73(tmp_path / f"{name}.mat", {name: array}, chunks=(1, 8, 40, 70), compression="gzip")
        else:
            scipy.io.savemat(tmp_path / f"{name}.mat", {name: array}, do_compression=form == "v5 packed")
    path = tmp_path / f"{names[0]}.mat"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"{names[0]}\.mat"):
        ingested(tmp_path, "sidd-plus")
