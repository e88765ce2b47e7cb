"""Sources of clean images: folders, archives, Zarr arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.source import Source


def test_every_image_is_listed_once(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    root = tmp_path / "photos"
    images = {
        "a.png": pair(0, 48, 48)[1],
        "sub/b.TIFF": pair(1, 48, 40, 1, "uint16")[1],
        "sub/deep/c.png": pair(2, 40, 48)[1],
    }
    for name, image in images.items():
        save(root / name.lower(), image) if name.islower() else save((root / name).with_suffix(".tiff"), image)
    (root / "sub" / "b.tiff").rename(root / "sub" / "b.TIFF")
    save(root / "a.jpg", pair(5, 48, 48)[1])
    (root / ".DS_Store").write_bytes(b"x")
    (root / "readme.md").write_text("x")
    found = ingested(root, "clean")
    assert sorted(found.rows) == ["a", "sub/b", "sub/deep/c"]
    assert list(found.reasons) == ["a.png"]
    assert "duplicate id 'a'; a.jpg is used" in found.reasons["a.png"]
    assert found.ignored == 2
    assert {(r["noisy"], r["noise_std"], r["licence"]) for r in found.rows.values()} == {(None, None, "not stated")}
    for name, image in found.pixels("clean"):
        if name != "a":
            np.testing.assert_array_equal(image, next(v for k, v in images.items() if k.startswith(f"{name}.")))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
def test_zarr_arrays_are_images(tmp_path: Path, pair: Callable, ingested: Callable, layout: str, dtype: str) -> None:
    images = np.stack([pair(k, 40, 48)[1] for k in range(5)])
    if dtype == "float32":
        images = images / np.float32(255)
    stored = {"NHWC": images, "NCHW": images.transpose(0, 3, 1, 2), "NHW": images[..., 0]}[layout].astype(dtype)
    array = zarr.create_array(
        tmp_path / "set" / "images.zarr", shape=stored.shape, dtype=dtype, chunks=(1, *stored.shape[1:])
    )
    array[:] = stored
    found = ingested(tmp_path / "set", "clean")
    assert list(found.rows) == [f"images.zarr:{k:06d}" for k in range(5)]
    expected = images[..., :1] if layout == "NHW" else images
    for k, (_, image) in enumerate(found.pixels("clean")):
        assert image.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(image, expected[k])


def test_an_array_may_be_the_source_and_groups_hold_arrays(tmp_path: Path, pair: Callable, ingested: Callable) -> None:
    images = np.stack([pair(k, 40, 48)[1] for k in range(2)])
    group = zarr.create_group(tmp_path / "all.zarr")
    group.create_array("inner", data=images)
    assert list(ingested(tmp_path / "all.zarr", "clean").rows) == ["inner:000000", "inner:000001"]
    assert list(ingested(tmp_path / "all.zarr" / "inner", "clean").rows) == ["inner:000000", "inner:000001"]


def test_damaged_and_odd_arrays_are_told(tmp_path: Path, pair: Callable, ingested: Callable, packed: Callable) -> None:
    images = np.stack([pair(k, 40, 48)[1] for k in range(3)])
    root = tmp_path / "set"
    zarr.create_array(root / "good", data=images, chunks=(1, 40, 48, 3))
    zarr.create_array(root / "vectors", data=np.zeros((4, 4)))
    zarr.create_array(root / "signed", data=images.astype(np.int16) + np.arange(40)[:, None, None].astype(np.int16))
    zarr.create_array(root / "endless", shape=(1 << 40, 8, 8), dtype="uint8", chunks=(1, 8, 8))
    zarr.create_array(root / "huge", shape=(2, 1 << 20, 1 << 20), dtype="uint8", chunks=(1, 64, 64))
    chunk = root / "good" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-40])
    (root / "good" / "c" / "2" / "0" / "0" / "0").unlink()
    (root / "text").mkdir()
    (root / "text" / "zarr.json").write_text("{")
    (root / "lies").mkdir()
    (root / "lies" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "array"}))
    found = ingested(root, "clean")
    assert list(found.rows) == ["good:000000"]
    words = {
        "good:000001": "image 1 is damaged",
        "good:000002": "constant",
        "vectors": r"no set of images",
        "signed:000000": "int16",
        "endless": "more than one catalogue can list",
        "huge": "more than is read here",
        "text": "no Zarr array",
        "lies": "no Zarr array",
    }
    for name, text in words.items():
        assert text in found.reasons[name], found.reasons[name]
    with pytest.raises(UserError, match="Zarr arrays in archives are not supported; unpack the archive"):
        ingested(packed(root, tmp_path / "z.zip"), "clean")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"has no image files \(\.png.*no Zarr v3 arrays"):
        adapter("clean").find(Source.of(str(tmp_path)))


@pytest.mark.parametrize("left", ["plan.json", "store.json"])
def test_a_store_is_no_folder_of_images(patches: str, left: str) -> None:
    (Path(patches) / ({"plan.json", "store.json"} - {left}).pop()).unlink()
    with pytest.raises(UserError, match=rf"patches: is a store written by pngnoise \(it has {left}\).*--clean"):
        adapter("clean").find(Source.of(patches))
