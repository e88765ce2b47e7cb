"""Bytes of valid files cut and flipped: nothing but an error in words may come out of a reader."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pngmodel.errors import UserError
from tasks.datasets import matfile, tiffpages
from tasks.datasets.archives import read_whole
from tasks.datasets.imagefile import decode
from tasks.datasets.pixels import read_pixels
from tasks.datasets.source import Source

PIXELS = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
BLOCKS = np.random.default_rng(1).integers(0, 255, (2, 2, 6, 5, 3), np.uint8)
Edits = list[tuple[int, int]]
EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=4)
QUICK = settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def damaged(content: bytes, keep: float, edits: Edits) -> bytes:
    """The first part of ``content`` with some bytes changed, half of them in its header."""
    data = bytearray(content[: int(keep * len(content))])
    for k, (place, flip) in enumerate(edits):
        if data:
            data[place % (len(data) if k % 2 else min(len(data), 300))] ^= flip
    return bytes(data)


KEEP = st.one_of(st.just(1.0), st.floats(0, 1))


@cache
def image_files() -> dict[str, bytes]:
    def saved(write: Callable[[io.BytesIO], object]) -> bytes:
        buffer = io.BytesIO()
        write(buffer)
        return buffer.getvalue()

    return {
        "a.png": saved(lambda b: Image.fromarray(PIXELS).save(b, "PNG")),
        "deep.png": bytes(imagecodecs.png_encode(PIXELS.astype(np.uint16) * 257)),
        "a.jpg": saved(lambda b: Image.fromarray(PIXELS).save(b, "JPEG")),
        "a.tif": saved(lambda b: tifffile.imwrite(b, PIXELS)),
        "lzw.tif": saved(lambda b: tifffile.imwrite(b, PIXELS, compression="lzw", predictor=True)),
        "tiles.tif": saved(lambda b: tifffile.imwrite(b, PIXELS, tile=(16, 16), compression="zlib", bigtiff=True)),
        "float.tif": saved(lambda b: tifffile.imwrite(b, PIXELS[..., 0].astype(np.float32))),
    }


@contextmanager
def told(name: str) -> Iterator[None]:
    """A failure is told in words that name the file; any other exception ends the test."""
    try:
        yield
    except UserError as error:
        if name not in str(error):
            raise AssertionError(f"does not name {name}: {error}") from error


@pytest.mark.parametrize("name", list(image_files()))
@given(keep=KEEP, edits=EDITS)
@QUICK
def test_image_files(name: str, keep: float, edits: Edits) -> None:
    with told(name):
        pixels = decode(damaged(image_files()[name], keep, edits), name)
        assert pixels.ndim == 3
        assert pixels.shape[-1] in (1, 3)


@pytest.mark.parametrize("form", ["v5", "packed", "v7.3"])
@given(keep=KEEP, edits=EDITS)
@QUICK
def test_matlab_files(tmp_path: Path, form: str, keep: float, edits: Edits) -> None:
    whole, path = tmp_path / "whole", tmp_path / "x.mat"
    if not whole.exists():
        if form == "v7.3":
            with h5py.File(whole, "w") as file:
                file.create_dataset("b", data=BLOCKS.T, chunks=(1, 5, 3, 2, 2), compression="gzip")
                file["i"] = PIXELS.T
        else:
            with whole.open("wb") as out:
                scipy.io.savemat(out, {"b": BLOCKS, "i": PIXELS}, do_compression=form == "packed")
    path.write_bytes(damaged(whole.read_bytes(), keep, edits))
    with told("x.mat"):
        matfile.variables(str(path))
    with told("x.mat"):
        assert all(image.ndim == 3 for image in read_pixels(str(path), ["b[1,1]", "b[0,1]", "i"]))


@given(keep=KEEP, edits=EDITS)
@QUICK
def test_tiff_stacks(tmp_path: Path, keep: float, edits: Edits) -> None:
    whole, path = tmp_path / "whole.tif", tmp_path / "x.tif"
    if not whole.exists():
        tifffile.imwrite(whole, BLOCKS[0, 0].transpose(2, 0, 1), photometric="minisblack", compression="zlib")
    path.write_bytes(damaged(whole.read_bytes(), keep, edits))
    with told("x.tif"):
        tiffpages.page_count(str(path))
    with told("x.tif"):
        assert all(image.ndim == 3 for image in read_pixels(str(path), ["page=0", "page=2", "mean"]))


@pytest.mark.parametrize("end", ["zip", "tar"])
@given(keep=KEEP, edits=EDITS)
@QUICK
def test_archives(tmp_path: Path, end: str, keep: float, edits: Edits) -> None:
    whole, path = tmp_path / f"whole.{end}", tmp_path / f"x.{end}"
    if not whole.exists():
        (tmp_path / "a").write_bytes(image_files()["a.png"])
        if end == "zip":
            with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in ("a.png", "folder/b.png"):
                    packed.write(tmp_path / "a", name)
        else:
            with tarfile.open(whole, "w") as tar:
                for name in ("a.png", "folder/b.png"):
                    tar.add(tmp_path / "a", name)
    path.write_bytes(damaged(whole.read_bytes(), keep, edits))
    source = Source.of(str(path))
    with told(f"x.{end}"):
        for name in source.files:
            with told(f"x.{end}"):
                read_whole(source.uri(name))
