"""Boxes of DND's info.mat, in every orientation that writers of HDF5 give them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pngmodel.errors import UserError
from tasks.datasets.adapters.dnd import Dnd
from tasks.datasets.formats.limits import DamagedFileError
from tasks.datasets.formats.mat_file import boxes
from tasks.datasets.source import Source

BOXES = np.arange(5 * 7 * 4).reshape(5, 7, 4) + 1.0  # of 5 images, 7 boxes each
EXPECTED = [[tuple(map(int, row)) for row in image] for image in BOXES]


def plain(path: Path, array: np.ndarray) -> str:
    with h5py.File(path, "w") as file:
        file["info/boundingboxes"] = array
    return str(path)


def cells(path: Path, arrays: list[np.ndarray]) -> str:
    with h5py.File(path, "w") as file:
        cell = file.create_dataset("info/boundingboxes", (1, len(arrays)), dtype=h5py.ref_dtype)
        for k, array in enumerate(arrays):
            cell[0, k] = file.create_dataset(f"#refs#/{k}", data=array).ref
    return str(path)


def test_every_orientation_that_can_be_told_is_read(tmp_path: Path) -> None:
    assert boxes(plain(tmp_path / "a.mat", BOXES), "info", "boundingboxes") == EXPECTED
    assert boxes(plain(tmp_path / "b.mat", BOXES.T), "info", "boundingboxes") == EXPECTED
    assert boxes(cells(tmp_path / "c.mat", list(BOXES)), "info", "boundingboxes") == EXPECTED
    assert boxes(cells(tmp_path / "d.mat", [image.T for image in BOXES]), "info", "boundingboxes") == EXPECTED


@pytest.mark.parametrize("shape", [(5, 4, 7), (4, 7, 4), (5, 7, 3), (28,), (2, 5, 7, 4)], ids=str)
def test_shapes_that_can_mean_anything_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = plain(tmp_path / "info.mat", np.ones(shape))
    with pytest.raises(UserError, match=r"info\.mat: boundingboxes is \(.*cannot be told") as raised:
        boxes(path, "info", "boundingboxes")
    assert not isinstance(raised.value, DamagedFileError)
    with pytest.raises(UserError, match="cannot be told"):
        boxes(cells(tmp_path / "cells.mat", [np.ones((4, 4))]), "info", "boundingboxes")
    for value in (np.nan, np.inf, 1.5):
        with pytest.raises(UserError, match="no whole numbers"):
            boxes(plain(tmp_path / "odd.mat", np.full((2, 3, 4), value)), "info", "boundingboxes")


def test_boxes_are_bounded_and_lie_in_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.mat", "w") as file:
        file.create_dataset("info/boundingboxes", (1 << 20, 1 << 20, 4), "f8", chunks=(1, 64, 4))
    with pytest.raises(UserError, match="more than 100000 boxes"):
        boxes(str(tmp_path / "huge.mat"), "info", "boundingboxes")
    with h5py.File(tmp_path / "many.mat", "w") as file:
        cell = file.create_dataset("info/boundingboxes", (300,), dtype=h5py.ref_dtype)
        cell[:] = [file.create_dataset("big", (1000, 4), "f8").ref] * 300
    with pytest.raises(UserError, match="more than 100000 boxes"):
        boxes(str(tmp_path / "many.mat"), "info", "boundingboxes")
    other = plain(tmp_path / "other.mat", BOXES)
    (tmp_path / "raw.bin").write_bytes(BOXES.tobytes())
    for kind in ("group", "link", "outside", "cell"):
        with h5py.File(tmp_path / "x.mat", "w") as file:
            if kind == "group":
                file["info"] = h5py.ExternalLink(other, "info")
            elif kind == "link":
                file["info/boundingboxes"] = h5py.ExternalLink(other, "info/boundingboxes")
            else:
                name = "info/boundingboxes" if kind == "outside" else "#refs#/0"
                shape = BOXES.shape if kind == "outside" else (7, 4)
                found = file.create_dataset(
                    name, shape, "f8", external=[(str(tmp_path / "raw.bin"), 0, int(np.prod(shape)) * 8)]
                )
                if kind == "cell":
                    file.create_dataset("info/boundingboxes", (1,), dtype=h5py.ref_dtype)[0] = found.ref
        with pytest.raises(UserError, match=r"x\.mat: (holds no info/boundingboxes|.*no matrix of its own)"):
            boxes(str(tmp_path / "x.mat"), "info", "boundingboxes")


def test_windows_that_are_none_and_images_that_come_twice(tmp_path: Path) -> None:
    (tmp_path / "a" / "images_srgb").mkdir(parents=True)
    (tmp_path / "a" / "images_srgb" / "0001.mat").touch()
    windows = [(1, 1, 8, 8), (1, 1, 1, 8), (1, 9, 8, 8), (0, 1, 8, 8), (5, 5, 5, 5)]
    cells(tmp_path / "a" / "info.mat", [np.array(windows, float)])
    found = Dnd().find(Source.of(str(tmp_path)))
    assert [r.pair for r in found.records] == ["0001_01"]
    assert [r.id for r in found.rejected] == ["0001_02", "0001_03", "0001_04", "0001_05"]
    (tmp_path / "b" / "images_srgb").mkdir(parents=True)
    (tmp_path / "b" / "images_srgb" / "0001.mat").touch()
    with pytest.raises(UserError, match=r"a/images_srgb/0001\.mat and b/images_srgb/0001\.mat are the same image"):
        Dnd().find(Source.of(str(tmp_path)))
    (tmp_path / "b" / "info.mat").touch()
    with pytest.raises(UserError, match=r"a/info\.mat and b/info\.mat have the same name"):
        Dnd().find(Source.of(str(tmp_path)))
