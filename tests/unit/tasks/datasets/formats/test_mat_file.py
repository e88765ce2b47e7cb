"""Parts of MATLAB files against SciPy, and how much memory they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from pngmodel.errors import UserError
from tasks.datasets.formats import mat_file as matfile
from tasks.datasets.formats.limits import DamagedFileError
from tasks.datasets.formats.pixels import read_pixels


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_are_what_scipy_reads(tmp_path: Path, packed: bool, dtype: str, order: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x.mat"
    arrays: dict[str, Any] = {
        "text": "hello",
        "blocks": np.asarray(rng.integers(0, 200, (3, 4, 9, 11, 3)).astype(dtype), order=order),
        "cell": np.array([1, "a"], dtype=object),
        "grey": rng.integers(0, 200, (2, 20, 21)).astype(dtype),
        "struct": {"a": 1},
        "complex": np.ones((4, 4)) * 1j,
        "image": rng.integers(0, 200, (20, 21, 3)).astype(dtype),
    }
    scipy.io.savemat(path, arrays, do_compression=packed)
    truth = scipy.io.loadmat(path)
    known = matfile.variables(str(path))
    assert {name: (v.shape, v.dtype) for name, v in known.items()} == {
        name: (truth[name].shape, dtype) for name in ("blocks", "grey", "image")
    }
    parts = ["blocks[2,3]", "blocks[0,0]", "image", "grey[1]", "blocks[2,3]", "image[3:9,5:21]", "blocks[1,2]"]
    expected = [
        truth["blocks"][2, 3],
        truth["blocks"][0, 0],
        truth["image"],
        truth["grey"][1],
        truth["blocks"][2, 3],
        truth["image"][3:9, 5:21],
        truth["blocks"][1, 2],
    ]
    for part, found, real in zip(parts, matfile.read_parts(str(path), parts), expected, strict=True):
        assert found.dtype == dtype, part
        np.testing.assert_array_equal(found, real)


def test_whole_numbers_that_matlab_stores_in_fewer_bytes(tmp_path: Path) -> None:
    """A double array of small whole numbers lies in the file as bytes; written here by hand."""
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)

    def element(kind: int, data: bytes) -> bytes:
        return np.array([kind, len(data)], "<u4").tobytes() + data + bytes(-len(data) % 8)

    body = element(6, np.array([6, 0], "<u4").tobytes()) + element(5, np.array([8, 8], "<i4").tobytes())
    body += element(1, b"img") + element(2, values.tobytes(order="F"))
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element(14, body))
    (found,) = matfile.read_parts(str(path), ["img"])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, scipy.io.loadmat(path)["img"])
    np.testing.assert_array_equal(found, values)


def test_big_endian_files(tmp_path: Path) -> None:
    values = np.arange(48, dtype=">u2").reshape(6, 8)

    def element(kind: int, data: bytes) -> bytes:
        return np.array([kind, len(data)], ">u4").tobytes() + data + bytes(-len(data) % 8)

    body = element(6, np.array([11, 0], ">u4").tobytes()) + element(5, np.array([6, 8], ">i4").tobytes())
    body += element(1, b"img") + element(4, values.tobytes(order="F"))
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, body))
    (found,) = read_pixels(str(path), ["img"])
    np.testing.assert_array_equal(found[..., 0], scipy.io.loadmat(path)["img"])
    assert found.dtype == np.uint16


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (3, 13, 10, 4, 3), "compression": "gzip"},
        {"chunks": (1, 5, 4, 1, 2), "compression": "gzip", "shuffle": True},
        {"chunks": (2, 2, 2, 2, 2)},
    ],
    ids=str,
)
def test_hdf5_blocks_for_any_chunks(tmp_path: Path, matlab73: Callable, layout: dict[str, Any]) -> None:
    blocks = np.random.default_rng(0).integers(0, 255, (3, 4, 10, 13, 3), np.uint8)
    path = tmp_path / "x.mat"
    matlab73(path, {"blocks": blocks}, **layout)
    index = [(i, j) for i in range(3) for j in range(4)]
    parts = [matfile.block_part("blocks", *k) for k in index]
    for k, found in zip(index, matfile.read_parts(str(path), parts), strict=True):
        np.testing.assert_array_equal(found, blocks[k])


@pytest.mark.parametrize("form", ["v5", "v7.3"])
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("nothing", "no variable 'nothing'"),
        ("blocks[9,0]", r"blocks is \(3, 4, 10, 13, 3\); it has no image at 9,0"),
        ("blocks", "no image at its top"),
        ("image[0:11,0:5]", r"no image at 0:11,0:5"),
        ("image[5:5,0:5]", r"no image at 5:5,0:5"),
        ("image[-1:5,0:5]", "is no part of a MATLAB file"),
        ("blocks[0,0,0,0]", "no image at 0,0,0,0"),
    ],
)
def test_parts_that_are_not_there(tmp_path: Path, matlab73: Callable, form: str, part: str, words: str) -> None:
    arrays = {"blocks": np.zeros((3, 4, 10, 13, 3), np.uint8), "image": np.zeros((10, 12, 3), np.uint8)}
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, arrays) if form == "v5" else matlab73(path, arrays)
    with pytest.raises(UserError, match=rf"x\.mat.*{words}") as raised:
        list(matfile.read_parts(str(path), [part]))
    assert not isinstance(raised.value, DamagedFileError)  # other parts can be read


def test_hdf5_does_not_reach_into_other_files(tmp_path: Path) -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["img"] = image
    (tmp_path / "raw.bin").write_bytes(image.tobytes())
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["linked"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "img")
        file.create_dataset("outside", (10, 10), "u1", external=[(str(tmp_path / "raw.bin"), 0, 100)])
        layout = h5py.VirtualLayout((10, 10), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "img", (10, 10))
        file.create_virtual_dataset("virtual", layout)
        file["own"] = image
    path = str(tmp_path / "x.mat")
    assert list(matfile.variables(path)) == ["own"]
    for name in ("linked", "outside", "virtual"):
        with pytest.raises(UserError, match="holds no variable"):
            list(matfile.read_parts(path, [name]))


MEASURE = """
import resource, sys
import numpy as np
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.adapters.sidd_blocks import SIDD_PLUS
path, kind = sys.argv[1:]
warm = 0
import h5py, tifffile, imagecodecs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = ["page=%d" % k for k in range(0, 24, 6)] if kind == "tif" else ["b[%d]" % k for k in range(0, 400, 100)]
total = sum(int(image.sum()) for image in read_pixels(path, parts))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(total, (after - before) // 1024)
"""


@pytest.mark.parametrize("form", ["v5", "v5 packed", "v7.3", "tif"])
def test_a_few_parts_of_a_large_file_take_little_memory(tmp_path: Path, matlab73: Callable, form: str) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    if form == "tif":
        pages = rng.integers(0, 255, (24, 2000, 1600), np.uint8)
        path, total = tmp_path / "x.tif", int(pages[::6].sum(dtype=np.int64))
        tifffile.imwrite(path, pages, photometric="minisblack")
    else:
        blocks = rng.integers(0, 255, (400, 256, 256, 3), np.uint8)
        path, total = tmp_path / "x.mat", int(blocks[::100].sum(dtype=np.int64))
        if form == "v7.3":
            matlab73(path, {"b": blocks}, chunks=(1, 16, 64, 400), compression="gzip", compression_opts=1)
        else:
            scipy.io.savemat(path, {"b": blocks}, do_compression=form == "v5 packed")
    assert path.stat().st_size > 60 << 20
    command = [sys.executable, "-c", MEASURE, str(path), path.suffix[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    found, megabytes = map(int, done.stdout.split())
    assert found == total
    assert megabytes < 50, f"{megabytes} MB for 4 parts of 77 MB"
