"""PolyU, CC15, Nam and DND as their owners ship them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.source import Source


def test_polyu_crops_and_originals(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    names = {
        "CroppedImages/Canon5D2_5_160_3200_chair_11": ("Canon5D2", 3200, "chair"),
        "CroppedImages/Canon600D_4-5_125_1600_toy_1": ("Canon600D", 1600, "toy"),
        "CroppedImages/SonyA7II_3-5_160_6400_plant_2_13": ("SonyA7II", 6400, "plant_2"),
        "OriginalImages/Canon5D2_5_160_3200_chair": ("Canon5D2", 3200, "chair"),
    }
    for seed, name in enumerate(names):
        noisy, clean = pair(seed, 64, 64, strength=3)
        real = "Real" if name.startswith("Original") else "real"
        save(tmp_path / f"{name}_{real}.JPG", noisy)
        save(tmp_path / f"{name}_mean.JPG", clean)
    (tmp_path / "README.txt").write_text("terms")
    found = ingested(tmp_path, "polyu")
    facts = {pair: (r["camera"], r["iso"], r["scene"]) for pair, r in found.rows.items()}
    assert facts == {
        n.removeprefix("CroppedImages/").replace("OriginalImages", "original"): f for n, f in names.items()
    }
    assert all("non-commercial" in r["licence"] for r in found.rows.values())
    assert (found.reasons, found.ignored) == ({}, 1)
    for (_, image), row in zip(found.pixels("noisy"), (found.rows[p] for p in sorted(found.rows)), strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(row["noisy"])))


def test_somebodys_denoised_images_in_cc15_are_not_read(
    tmp_path: Path, pair: Callable, save: Callable, ingested: Callable
) -> None:
    root = tmp_path / "Real_ccnoise_denoised_part"
    for seed, name in enumerate(("5dmark3_iso3200_1", "d600_iso3200_2", "d800_iso6400_3")):
        noisy, clean = pair(seed, 48, 48)
        for side, image in {"real": noisy, "mean": clean, "ours": clean}.items():
            save(root / f"{name}_{side}.png", image)
    found = ingested(root, "cc15")
    assert {(r["camera"], r["iso"]) for r in found.rows.values()} == {
        ("Canon5D3", 3200),
        ("NikonD600", 3200),
        ("NikonD800", 6400),
    }
    assert (found.reasons, found.ignored) == ({}, 3)
    for image_pair, image in found.pixels("clean"):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / f"{image_pair}_mean.png")))
    assert not any("ours" in row[side] for row in found.rows.values() for side in ("noisy", "clean"))


@pytest.mark.parametrize("form", ["v5", "v5 packed", "v7.3"])
def test_nam_scenes(tmp_path: Path, pair: Callable, ingested: Callable, matlab73: Callable, form: str) -> None:
    arrays = {}
    for seed, name in enumerate(("Canon EOS 5D Mark3 ISO 3200 C1", "Nikon D800 ISO 1600 B2", "unnamed")):
        noisy, clean = pair(seed, 40, 56)
        arrays[name] = {"img_noisy": noisy, "img_mean": clean, "img_cov": np.ones((4, 4))}
        if form == "v7.3":
            matlab73(tmp_path / f"{name}.mat", arrays[name])
        else:
            scipy.io.savemat(tmp_path / f"{name}.mat", arrays[name], do_compression=form == "v5 packed")
    found = ingested(tmp_path, "nam")
    assert {name: (r["camera"], r["iso"]) for name, r in found.rows.items()} == {
        "Canon EOS 5D Mark3 ISO 3200 C1": ("Canon_EOS_5D_Mark3", 3200),
        "Nikon D800 ISO 1600 B2": ("Nikon_D800", 1600),
        "unnamed": (None, None),
    }
    for side, variable in (("noisy", "img_noisy"), ("clean", "img_mean")):
        for name, image in found.pixels(side):
            np.testing.assert_array_equal(image, arrays[name][variable])


def test_nam_tells_scenes_that_lack_a_variable_or_are_no_matlab_file(
    tmp_path: Path, pair: Callable, ingested: Callable
) -> None:
    noisy, clean = pair(0, 40, 40)
    scipy.io.savemat(tmp_path / "good.mat", {"img_noisy": noisy, "img_mean": clean})
    scipy.io.savemat(tmp_path / "half.mat", {"img_noisy": noisy})
    (tmp_path / "text.mat").write_text("no")
    (tmp_path / "empty.mat").write_bytes(b"")
    found = ingested(tmp_path, "nam")
    assert list(found.rows) == ["good"]
    assert found.reasons["half.mat"] == "has no variable img_mean"
    assert "text.mat: is no MATLAB file" in found.reasons["text.mat"]
    assert "empty.mat: is empty" in found.reasons["empty.mat"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_scene_cut_off_before_its_mean_is_truncated_and_lacks_nothing(
    tmp_path: Path, pair: Callable, ingested: Callable, packed: bool
) -> None:
    noisy, clean = pair(0, 40, 40)
    scene = {"img_noisy": noisy, "img_mean": clean}
    scipy.io.savemat(tmp_path / "good.mat", scene, do_compression=packed)
    whole = (tmp_path / "good.mat").read_bytes()
    for length in (200, len(whole) // 4, len(whole) * 2 // 5):
        (tmp_path / f"cut{length}.mat").write_bytes(whole[:length])
    found = ingested(tmp_path, "nam")
    assert list(found.rows) == ["good"]
    assert len(found.reasons) == 3
    assert all(".mat: is truncated" in reason for reason in found.reasons.values())


@pytest.mark.parametrize("form", ["v5", "v7.3"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nam_means_of_another_class_are_told(
    tmp_path: Path, pair: Callable, ingested: Callable, matlab73: Callable, form: str, dtype: str
) -> None:
    noisy, clean = pair(0, 40, 40)
    arrays = {"img_noisy": noisy, "img_mean": clean.astype(dtype)}
    if form == "v7.3":
        matlab73(tmp_path / "x.mat", arrays)
    else:
        scipy.io.savemat(tmp_path / "x.mat", arrays)
    scipy.io.savemat(tmp_path / "good.mat", {"img_noisy": noisy, "img_mean": clean})
    found = ingested(tmp_path, "nam")
    assert list(found.rows) == ["good"]
    assert f"img_noisy is uint8, but img_mean is {dtype}; store both" in found.reasons["x.mat"]
    assert "cast(round(img_mean), class(img_noisy))" in found.reasons["x.mat"]


def write_dnd(root: Path, images: list[np.ndarray], boxes: np.ndarray) -> None:
    """As MATLAB writes it: a struct whose field is a cell, which HDF5 holds as object references."""
    (root / "images_srgb").mkdir(parents=True)
    for k, image in enumerate(images, 1):
        with h5py.File(root / "images_srgb" / f"{k:04d}.mat", "w", userblock_size=512) as file:
            file.create_dataset("InoisySRGB", data=image.T, chunks=(1, 32, 32), compression="gzip")
    with h5py.File(root / "info.mat", "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        info = file.create_group("info")
        info.attrs["MATLAB_class"] = np.bytes_("struct")
        cells = [refs.create_dataset(f"box{k}", data=boxes.T.astype(np.float64)).ref for k in range(len(images))]
        cell = info.create_dataset("boundingboxes", (len(images), 1), dtype=h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        for k, reference in enumerate(cells):
            cell[k, 0] = reference


def test_dnd_boxes_are_cut_as_the_owners_cut_them(tmp_path: Path, pair: Callable, ingested: Callable) -> None:
    images = [(pair(seed, 96, 128)[0] / np.float32(255)).astype(np.float32) for seed in range(2)]
    boxes = np.array([[1, 1, 40, 40], [57, 89, 96, 128], [11, 31, 50, 70]])  # rows, columns, from 1, end included
    write_dnd(tmp_path / "dnd", images, boxes)
    found = ingested(tmp_path / "dnd", "dnd")
    assert list(found.rows) == [f"{k:04d}_{b:02d}" for k in (1, 2) for b in (1, 2, 3)]
    assert {(r["split"], r["clean"], r["dtype"]) for r in found.rows.values()} == {("test", None, "float32")}
    assert {r["scene"] for r in found.rows.values()} == {"0001", "0002"}
    for name, image in found.pixels("noisy"):
        y0, x0, y1, x1 = boxes[int(name[-2:]) - 1]
        np.testing.assert_array_equal(image, images[int(name[:4]) - 1][y0 - 1 : y1, x0 - 1 : x1])


def test_dnd_without_boxes_and_with_boxes_beyond_the_image(tmp_path: Path, pair: Callable, ingested: Callable) -> None:
    images = [(pair(seed, 64, 64)[0] / np.float32(255)).astype(np.float32) for seed in range(2)]
    write_dnd(tmp_path / "dnd", images, np.array([[1, 1, 40, 40], [0, 1, 40, 40], [30, 30, 70, 60]]))
    found = ingested(tmp_path / "dnd", "dnd")
    assert list(found.rows) == ["0001_01", "0002_01"]
    assert "box 2" in found.reasons["0001_02"]
    assert "(64, 64, 3)" in found.reasons["0002_03"]
    (tmp_path / "dnd" / "info.mat").unlink()
    with pytest.raises(UserError, match=r"info\.mat is missing; expected info\.mat and images_srgb"):
        adapter("dnd").find(Source.of(str(tmp_path / "dnd")))


@pytest.mark.parametrize("name", ["polyu", "cc15", "nam", "dnd", "sidd-plus", "sidd-benchmark", "tiff", "clean"])
def test_a_folder_of_something_else_is_refused_with_what_was_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=rf"{tmp_path.name}: (no |has no |.* is missing)"):
        adapter(name).find(Source.of(str(tmp_path)))
