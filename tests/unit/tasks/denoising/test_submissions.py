"""Submissions as the servers of SIDD and DND read them, pixel for pixel, by readers that are not the writer's."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

from pngmodel.denoisers import ImageDenoiser
from pngmodel.errors import UserError
from tasks.datasets.catalogue import COMMIT
from tasks.datasets.formats import mat_file as matfile
from tasks.datasets.ingest import IngestSettings, ingest
from tasks.denoising import submissions
from tasks.denoising.matlab73 import matlab73
from tasks.denoising.submissions import SubmitParameters, submit
from tasks.models import denoisers
from tasks.stores.io.filesystem import read_json

SIDE = (16, 20)  # not square, so that exchanged axes show


class Half(ImageDenoiser):
    """Half of every level: not what came in, and known exactly."""

    name = "half"

    def run(self, noisy: Tensor) -> Tensor:
        return noisy / 2


@pytest.fixture(autouse=True)
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(denoisers.CLASSICAL, "half", Half)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sidd(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """The catalogue of a benchmark of 40 x 32 small blocks in MATLAB 5, and the blocks."""
    root = tmp_path_factory.mktemp("sidd")
    blocks = np.random.default_rng(0).integers(0, 256, (40, 32, *SIDE, 3)).astype(np.uint8)
    (root / "data").mkdir()
    scipy.io.savemat(root / "data" / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": blocks})
    ingest(str(root / "data"), "sidd-benchmark", str(root / "catalogue"))
    return str(root / "catalogue"), blocks


def write_dnd(root: Path, boxes: int = 20, images: int = 50) -> list[list[np.ndarray]]:
    """DND as shipped, boxes of 16 x 20 in images of 60 x 200; returns the boxes' pixels, (H, W, C)."""
    rng = np.random.default_rng(1)
    (root / "images_srgb").mkdir(parents=True)
    found = []
    with h5py.File(root / "info.mat", "w") as info:
        cell = info.create_dataset("info/boundingboxes", (1, images), dtype=h5py.ref_dtype)
        for k in range(images):
            image = rng.random((60, 200, 3)).astype(np.float32)
            corners = [(1 + 3 * (b % 4), 1 + 9 * b) for b in range(boxes)]
            box = np.array([(y, x, y + SIDE[0] - 1, x + SIDE[1] - 1) for y, x in corners], np.float64)
            cell[0, k] = info.create_dataset(f"#refs#/{k}", data=box.T).ref
            found.append([image[y - 1 : y - 1 + SIDE[0], x - 1 : x - 1 + SIDE[1]] for y, x in corners])
            with h5py.File(root / "images_srgb" / f"{k + 1:04d}.mat", "w") as file:
                file.create_dataset("InoisySRGB", data=image.T)
    return found


@pytest.fixture(scope="module")
def dnd(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[list[np.ndarray]]]:
    """The catalogue of 50 images of 20 boxes, and the boxes."""
    root = tmp_path_factory.mktemp("dnd")
    boxes = write_dnd(root / "data")
    ingest(str(root / "data"), "dnd", str(root / "catalogue"), IngestSettings(data_range=1.0))
    return str(root / "catalogue"), boxes


def submitted(benchmark: str, catalogue: str, output: Path, **changes: Any) -> dict[str, Any]:
    fields = {"benchmark": benchmark, "catalogue": catalogue, "denoiser": "half", "output": str(output)}
    return submit(SubmitParameters(**(fields | changes)))


def rounded(blocks: np.ndarray) -> np.ndarray:
    """Half of the levels, rounded to even as NumPy does."""
    return np.round(blocks.astype(np.float32) / 255 / 2 * np.float32(255)).astype(np.uint8)


def header(path: Path) -> bytes:
    return path.read_bytes()[:128]


def text(found: h5py.Dataset) -> str:
    assert found.attrs["MATLAB_class"] == b"char"
    assert found.attrs["MATLAB_int_decode"] == 2
    if "MATLAB_empty" in found.attrs:
        return ""
    return np.asarray(found).ravel().astype("<u2").tobytes().decode("utf-16-le")


def cell(file: h5py.File, name: str) -> np.ndarray:
    """A cell as MATLAB indexes it: (rows, columns) of arrays in MATLAB's axes."""
    found = file[name]
    assert found.attrs["MATLAB_class"] == b"cell"
    assert found.dtype == h5py.ref_dtype
    out = np.empty(found.shape[::-1], object)
    for location in np.ndindex(out.shape):
        element = file[found[location[::-1]]]
        assert element.name.startswith("/#refs#/")
        assert element.attrs["MATLAB_class"] in (b"uint8", b"single")
        out[location] = np.asarray(element).T
    return out


def test_sidd_in_matlab(sidd: tuple[str, np.ndarray], tmp_path: Path) -> None:
    catalogue, blocks = sidd
    fields = {"method": "Hälfte", "authors": "Jane Doe", "paper_title": "A title"}
    record = submitted("sidd", catalogue, tmp_path / "out", **fields)
    path = tmp_path / "out" / "upload" / "SubmitSrgb.mat"
    assert [p.name for p in path.parent.iterdir()] == ["SubmitSrgb.mat"]
    assert not (tmp_path / "out" / "pieces").exists()
    assert header(path).startswith(b"MATLAB 7.3 MAT-file")
    assert header(path)[124:] == b"\x00\x02IM"
    assert path.read_bytes()[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(path) as file:
        assert file.userblock_size == 512
        assert set(file) == {"#refs#", "DenoisedBlocksSrgb", "TimeMPSrgb", "OptionalData"}
        assert len(file["#refs#"]) == 1280
        found = cell(file, "DenoisedBlocksSrgb")
        assert found.shape == (40, 32)
        for i, b in np.ndindex(found.shape):
            assert found[i, b].dtype == np.uint8
            np.testing.assert_array_equal(found[i, b], rounded(blocks[i, b]))
        assert file["TimeMPSrgb"].shape == (1, 1)
        assert file["TimeMPSrgb"].attrs["MATLAB_class"] == b"double"
        assert file["TimeMPSrgb"][0, 0] == record["seconds_per_megapixel"] > 0
        data = file["OptionalData"]
        assert data.attrs["MATLAB_class"] == b"struct"
        told = {name: text(data[name]) for name in data}
    assert told == {"MethodName": "Hälfte", "Authors": "Jane Doe", "PaperTitle": "A title", "Venue": ""}
    assert record == read_json(str(tmp_path / "out" / "submission.json"))
    assert (record["denoiser"], record["images"], len(record["files"])) == ("half", 40, 1)


def test_sidd_for_kaggle(sidd: tuple[str, np.ndarray], tmp_path: Path) -> None:
    catalogue, blocks = sidd
    submitted("sidd", catalogue, tmp_path / "out", form="kaggle", denoiser="nlm")
    with (tmp_path / "out" / "upload" / "SubmitSrgb.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ID", "BLOCK"]
    assert [row[0] for row in rows[1:]] == [str(k) for k in range(1280)]
    nlm = denoisers.NonLocalMeans()
    for k in (0, 1, 31, 32, 33, 700, 1279):  # image-major: 32 blocks of the first image, then those of the second
        pixels = np.frombuffer(base64.b64decode(rows[1 + k][1]), np.uint8).reshape(*SIDE, 3)
        noisy = blocks[k // 32, k % 32]
        np.testing.assert_array_equal(pixels, nlm.denoise(noisy))
        assert not np.array_equal(pixels, noisy)


def test_dnd(dnd: tuple[str, list[list[np.ndarray]]], tmp_path: Path) -> None:
    catalogue, boxes = dnd
    record = submitted("dnd", catalogue, tmp_path / "out")
    upload = tmp_path / "out" / "upload"
    assert sorted(p.name for p in upload.iterdir()) == [f"{k:04d}.mat" for k in range(1, 51)] == list(record["files"])
    for k in range(50):
        path = upload / f"{k + 1:04d}.mat"
        assert header(path)[124:] == b"\x00\x02IM"
        with h5py.File(path) as file:
            assert set(file) == {"#refs#", "Idenoised", "israw", "eval_version"}
            found = cell(file, "Idenoised")
            assert found.shape == (1, 20)
            for b in range(20):
                assert found[0, b].dtype == np.float32
                np.testing.assert_array_equal(found[0, b], boxes[k][b] / 2)
            assert file["israw"].attrs["MATLAB_class"] == b"logical"
            assert np.asarray(file["israw"]).tolist() == [[0]]
            assert text(file["eval_version"]) == "1.0"


def test_resuming(
    sidd: tuple[str, np.ndarray], dnd: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, what is whole is kept; damage is made anew; the same files come out."""
    real, calls = submissions._denoised, []

    def counted(task: Any, rows: Any) -> Any:
        calls.append(task.number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(task, rows)

    monkeypatch.setattr(submissions, "_denoised", counted)
    for benchmark, catalogue, total in (("sidd", sidd[0], 40), ("dnd", dnd[0], 50)):
        output = tmp_path / benchmark
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            submitted(benchmark, catalogue, output)
        assert not (output / "submission.json").exists()
        parts = sorted((output / ".submission" / "parts").iterdir())
        assert len(parts) == 3
        damaged = parts[0] if benchmark == "dnd" else next((output / ".submission" / "blocks").iterdir())
        damaged.write_bytes(damaged.read_bytes()[:-30])
        calls[:] = [-1] * 10
        record = submitted(benchmark, catalogue, output)
        assert len(calls) - 10 == total - 2
        calls.clear()
        assert submitted(benchmark, catalogue, output) == record
        assert calls == []
    lost = tmp_path / "dnd" / "upload" / "0007.mat"
    whole = lost.read_bytes()
    lost.write_bytes(b"damaged")
    calls.clear()
    assert submitted("dnd", dnd[0], tmp_path / "dnd")["files"]["0007.mat"] == record["files"]["0007.mat"]
    assert lost.read_bytes() == whole
    assert calls == [7]


def test_what_is_refused(sidd: tuple[str, np.ndarray], dnd: tuple[str, Any], catalogue: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains tiny_pairs; ingest the benchmark with --adapter sidd-benchmark"):
        submitted("sidd", catalogue, tmp_path / "out")
    with pytest.raises(UserError, match="contains sidd_benchmark; ingest the benchmark with --adapter dnd"):
        submitted("dnd", sidd[0], tmp_path / "out")
    with pytest.raises(UserError, match="DND accepts only MATLAB files"):
        submitted("dnd", dnd[0], tmp_path / "out", form="kaggle")
    with pytest.raises(UserError, match="submissions are written to a local folder"):
        submitted("dnd", dnd[0], "s3://bucket/out")  # type: ignore[arg-type]
    blocks = sidd[1][:39]
    (tmp_path / "short").mkdir()
    scipy.io.savemat(tmp_path / "short" / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": blocks})
    ingest(str(tmp_path / "short"), "sidd-benchmark", str(tmp_path / "short-catalogue"))
    with pytest.raises(UserError, match=r"32 of 1280 images are missing, e\.g\. 0039-0000, 0039-0001, 0039-0002"):
        submitted("sidd", str(tmp_path / "short-catalogue"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    submitted("sidd", sidd[0], tmp_path / "out")
    with pytest.raises(
        UserError, match=r"a different submission; different settings: denoiser \('half' exists, 'nlm' req"
    ):
        submitted("sidd", sidd[0], tmp_path / "out", denoiser="nlm")
    assert Path(sidd[0], COMMIT).exists()


def test_matlab_files_are_read_by_the_projects_own_reader(tmp_path: Path) -> None:
    """Numeric variables; the reader was tested with files of other writers."""
    path = tmp_path / "x.mat"
    with matlab73(path) as file:
        file.number("x", 2.5)
        file.cell("c", 1, 2, [np.zeros((2, 3), np.uint8), np.ones((3, 2), np.float64)])
    assert matfile.variables(str(path))["x"].shape == (1, 1)
    with h5py.File(path) as found:
        assert found[found["c"][1, 0]].shape == (2, 3)
    with pytest.raises(KeyError), matlab73(path) as file:
        file.cell("c", 1, 1, [np.zeros(3, np.complex128)])  # a class that is not written
    with h5py.File(path) as found:
        assert found["x"][0, 0] == 2.5
    assert [p.name for p in tmp_path.iterdir()] == ["x.mat"]
    assert torch.is_tensor(Half().run(torch.zeros(1)))
