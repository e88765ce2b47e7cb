"""SIDD's block sets: MATLAB 5 (packed and not), 7.3, and trees of PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.source import Source

NAMES = ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb")
LABELS = "0,0001_001_S6_00100_00060_3200_L\n1,0007_002_GP_01600_00350_3200_N\n2,0009_003_IP_01250_00350_5500_H\n"


@pytest.fixture(params=["v5", "v5 packed", "v7.3", "v7.3 chunked"])
def write(request: pytest.FixtureRequest, matlab73: Callable) -> Callable[[Path, dict[str, np.ndarray]], None]:
    """A writer of MATLAB files of one version."""

    def v73(path: Path, arrays: dict[str, np.ndarray]) -> None:
        chunks = {"chunks": (1, 16, 40, 2, 1), "compression": "gzip"} if request.param == "v7.3 chunked" else {}
        matlab73(path, arrays, **chunks)

    def v5(path: Path, arrays: dict[str, np.ndarray]) -> None:
        scipy.io.savemat(path, arrays, do_compression=request.param == "v5 packed")

    return v73 if request.param.startswith("v7.3") else v5


def test_validation_blocks_are_what_the_array_holds(
    tmp_path: Path, blocks: Callable, write: Callable, ingested: Callable
) -> None:
    arrays = dict(zip(NAMES, blocks(3, 2), strict=True))
    (tmp_path / "sidd").mkdir()
    for name, array in arrays.items():
        write(tmp_path / "sidd" / f"{name}.mat", {name: array})
    found = ingested(tmp_path / "sidd", "sidd-validation")
    assert sorted(found.rows) == [f"{i:04d}-{b:04d}" for i in range(3) for b in range(2)]
    assert found.reasons == {}
    assert {(r["split"], r["camera"], r["iso"]) for r in found.rows.values()} == {("validation", None, None)}
    assert {r["scene"] for r in found.rows.values()} == {"validation-0000", "validation-0001", "validation-0002"}
    for side, name in zip(("noisy", "clean"), NAMES, strict=True):
        for pair, image in found.pixels(side):
            np.testing.assert_array_equal(image, arrays[name][int(pair[:4]), int(pair[5:])])


def test_labels_beside_the_blocks_tell_scene_camera_and_iso(
    tmp_path: Path, blocks: Callable, ingested: Callable
) -> None:
    for name, array in zip(NAMES, blocks(3, 1), strict=True):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: array})
    (tmp_path / "validation_label.csv").write_text(LABELS)
    expected = {"0000-0000": ("001", "S6", 100), "0001-0000": ("002", "GP", 1600), "0002-0000": ("003", "IP", 1250)}
    found = ingested(tmp_path, "sidd-validation")
    assert {p: (r["scene"], r["camera"], r["iso"]) for p, r in found.rows.items()} == expected
    from_one = "index,instance\n" + "\n".join(f"{k + 1},{line[2:]}" for k, line in enumerate(LABELS.splitlines()))
    (tmp_path / "validation_label.csv").write_text(from_one)
    found = ingested(tmp_path, "sidd-validation")
    assert {p: (r["scene"], r["camera"], r["iso"]) for p, r in found.rows.items()} == expected
    (tmp_path / "validation_label.csv").write_text(LABELS[2:])
    with pytest.raises(UserError, match=r"validation_label\.csv"):
        ingested(tmp_path, "sidd-validation")


@pytest.mark.parametrize("labels", [False, True])
def test_validation_as_trees_of_png(
    tmp_path: Path, blocks: Callable, save: Callable, ingested: Callable, labels: bool
) -> None:
    sides = dict(zip(("input", "groundtruth"), blocks(2, 2), strict=True))
    for folder, array in sides.items():
        for i, b in np.ndindex(2, 2):
            save(tmp_path / "sidd" / folder / f"{i:04d}-{b:04d}.png", array[i, b])
    if labels:
        (tmp_path / "sidd" / "validation_label.csv").write_text(LABELS[: LABELS.index("2,")])
    found = ingested(tmp_path / "sidd", "sidd-validation")
    assert [r["camera"] for r in found.rows.values()] == (["S6", "S6", "GP", "GP"] if labels else [None] * 4)
    for side, folder in (("noisy", "input"), ("clean", "groundtruth")):
        for pair, image in found.pixels(side):
            np.testing.assert_array_equal(image, sides[folder][int(pair[:4]), int(pair[5:])])


def test_the_benchmark_has_one_side(tmp_path: Path, blocks: Callable, write: Callable, ingested: Callable) -> None:
    noisy = blocks(2, 2)[0]
    write(tmp_path / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": noisy})
    found = ingested(tmp_path, "sidd-benchmark")
    assert len(found.rows) == 4
    assert {(r["clean"], r["split"], r["noise_std"]) for r in found.rows.values()} == {(None, "test", None)}
    for pair, image in found.pixels("noisy"):
        np.testing.assert_array_equal(image, noisy[int(pair[:4]), int(pair[5:])])
    with pytest.raises(UserError, match="has no clean images"):
        list(found.pixels("clean"))


def test_plus_as_arrays_and_as_folders(tmp_path: Path, blocks: Callable, save: Callable, ingested: Callable) -> None:
    names = ("siddplus_valid_noisy_srgb", "siddplus_valid_gt_srgb")
    arrays = dict(zip(names, blocks(5), strict=True))
    (tmp_path / "mat").mkdir()
    for name, array in arrays.items():
        scipy.io.savemat(tmp_path / "mat" / f"{name}.mat", {name: array}, do_compression=True)
        for k, image in enumerate(array):
            save(tmp_path / "png" / name / f"{k:04d}.PNG", image)
    mat, png = (ingested(tmp_path / form, "sidd-plus") for form in ("mat", "png"))
    assert list(mat.rows) == list(png.rows) == [f"{k:04d}" for k in range(5)]
    for name, side in zip(names, ("noisy", "clean"), strict=True):
        for found in (mat, png):
            for pair, image in found.pixels(side):
                np.testing.assert_array_equal(image, arrays[name][int(pair)])
    assert {r["scene"] for r in mat.rows.values()} == {"sidd_plus"}  # which blocks share a scene is not published


def test_half_a_set_and_other_shapes_are_refused(tmp_path: Path, blocks: Callable) -> None:
    noisy, clean = blocks(2, 1)
    scipy.io.savemat(tmp_path / f"{NAMES[0]}.mat", {NAMES[0]: noisy})
    with pytest.raises(UserError, match=rf"has {NAMES[0]}\.mat, but {NAMES[1]}\.mat is missing"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))
    scipy.io.savemat(tmp_path / f"{NAMES[1]}.mat", {NAMES[1]: clean[:1]})
    with pytest.raises(UserError, match=r"different shapes: .*\(2, 1, 40, 40, 3\).*\(1, 1, 40, 40, 3\)"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))
    scipy.io.savemat(tmp_path / f"{NAMES[1]}.mat", {"other": clean[0, 0], "text": "x"})
    with pytest.raises(UserError, match=rf"no array {NAMES[1]} with 5 axes; it has other \(40, 40, 3\)"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))


def test_a_variable_under_another_name_is_found_by_its_shape(
    tmp_path: Path, blocks: Callable, ingested: Callable
) -> None:
    for name, array in zip(NAMES, blocks(2, 1), strict=True):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"meta": np.eye(3), "x": array})
    assert len(ingested(tmp_path, "sidd-validation").rows) == 2


@pytest.mark.parametrize("text", ["", "x" * 200_000, "9" * 5000 + ",0001_001_S6_00100_00060_3200_L", "a,b\n1,2\n"])
def test_labels_that_are_none_are_refused_by_name(tmp_path: Path, blocks: Callable, text: str) -> None:
    for name, array in zip(NAMES, blocks(1, 1), strict=True):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: array})
    (tmp_path / "validation_label.csv").write_text(text)
    with pytest.raises(UserError, match=r"validation_label\.csv"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))


def write_blocks(folder: Path, count: int) -> None:
    for name in NAMES:
        scipy.io.savemat(folder / f"{name}.mat", {name: np.zeros((count, 2, 8, 8, 3), np.uint8)})


def write_png(folder: Path, images: list[int]) -> None:
    for side in ("input", "groundtruth"):
        (folder / side).mkdir(parents=True)
        for image in images:
            for block in range(2):
                (folder / side / f"{image:04d}-{block:04d}.png").touch()


def rows(indices: list[int]) -> str:
    return "".join(f"{index},0001_{k:03d}_S6_00100_00060_3200_L\n" for k, index in enumerate(indices))


@pytest.mark.parametrize("images", [[0, 1, 2], [1, 2, 3]], ids=str)
@pytest.mark.parametrize("indices", [[0, 1, 2], [1, 2, 3], [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]], ids=str)
def test_labels_and_trees_may_each_count_from_0_or_1(tmp_path: Path, images: list[int], indices: list[int]) -> None:
    write_png(tmp_path, images)
    (tmp_path / "validation_label.csv").write_text(rows(indices))
    scenes = [r.scene for r in adapter("sidd-validation").find(Source.of(str(tmp_path))).records]
    expected = [0, 0, 1, 1, 2, 2] if len(indices) == 3 else range(6)
    assert scenes == [f"{k:03d}" for k in expected]


@pytest.mark.parametrize(
    "indices", [[0, 1], [0, 1, 2, 3], [0, 1, 3], [2, 3, 4], [0, 1, 2, 3, 5, 6], [0, 1, 1]], ids=str
)
def test_labels_of_other_images_are_refused(tmp_path: Path, indices: list[int]) -> None:
    write_blocks(tmp_path, 3)
    (tmp_path / "validation_label.csv").write_text(rows(indices))
    with pytest.raises(UserError, match=r"validation_label\.csv: (lists .* 3 images from 0 to 2|has two instances)"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))


def test_validation_labels_are_of_the_validation_set_alone(tmp_path: Path) -> None:
    name = "BenchmarkNoisyBlocksSrgb"
    scipy.io.savemat(tmp_path / f"{name}.mat", {name: np.zeros((3, 2, 8, 8, 3), np.uint8)})
    (tmp_path / "validation_label.csv").write_text(LABELS)
    found = adapter("sidd-benchmark").find(Source.of(str(tmp_path)))
    assert {(r.scene, r.camera) for r in found.records} == {(f"test-{k:04d}", None) for k in range(3)}
    for name in ("siddplus_valid_noisy_srgb", "siddplus_valid_gt_srgb"):
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: np.zeros((3, 8, 8, 3), np.uint8)})
    found = adapter("sidd-plus").find(Source.of(str(tmp_path)))
    assert {(r.scene, r.iso) for r in found.records} == {("sidd_plus", None)}


def test_two_files_of_one_name_are_refused_by_both(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_blocks(tmp_path / folder, 1)
    with pytest.raises(UserError, match=rf"a/{NAMES[0]}\.mat and b/{NAMES[0]}\.mat have the same name"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))


def test_blocks_of_another_dtype_are_refused_at_once(tmp_path: Path, matlab73: Callable) -> None:
    for name in NAMES:
        matlab73(tmp_path / f"{name}.mat", {name: np.zeros((2, 2, 8, 8, 3), np.int16)})
    with pytest.raises(UserError, match=rf"{NAMES[0]}\.mat: {NAMES[0]} is int16, but the published sRGB file is uint8"):
        adapter("sidd-validation").find(Source.of(str(tmp_path)))
