"""Patch extraction: exact pixels, flush windows, resumable, one recipe per place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets import extraction as patches_module
from tasks.datasets.catalogue import load_catalogue, read_one
from tasks.datasets.extraction import Geometry, corners, extract_patches
from tasks.datasets.formats import tiff_pages as tiffpages
from tasks.datasets.ingest import ingest
from tasks.stores.commits import part_name
from tasks.stores.io.listing import list_files
from tasks.stores.layout import shard_object
from tasks.stores.patch_store import PatchStore

Tree = Callable[[str], dict[str, bytes]]


def flip(path: Path, at: float = 0.5) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0xFF
    path.write_bytes(content)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 64))
def test_windows_cover_to_the_border_and_stay_inside(length: int, size: int, stride: int) -> None:
    found = corners(length, size, stride)
    if length < size:
        assert found == []
        return
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == length - size
    assert all(b - a <= stride for a, b in itertools.pairwise(found))
    assert all(c % stride == 0 for c in found[:-1])


def test_every_patch_is_its_window_of_the_source(sidd_small: Path, tmp_path: Path) -> None:
    catalogue, url = str(tmp_path / "c"), str(tmp_path / "p")
    ingest(str(sidd_small), "sidd-small", catalogue)
    result = extract_patches(catalogue, url, geometry=Geometry(size=32, stride=24), shard=10)
    images = {r["pair"]: r for r in load_catalogue(catalogue)[0].to_pylist()}
    store = PatchStore.open(url)
    rows = store.table.to_pylist()
    assert len(store) == len(rows) == result["patches"] == 3 * 3 * 4  # 80 x 96: rows 0 24 48, columns 0 24 48 64
    assert {r["y"] for r in rows} == {0, 24, 48}
    assert {r["x"] for r in rows} == {0, 24, 48, 64}
    for k, row in enumerate(rows):
        assert row["patch"] == k
        for side, patch in zip(("clean", "noisy"), store.read(k), strict=True):
            whole = read_one(images[row["pair"]], side)
            window = whole[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
            np.testing.assert_array_equal(np.moveaxis(patch, 0, -1), window)
        assert row["slot"] == store.layout.slot(k)
    assert store.licence == "MIT (SIDD)"


def test_running_again_keeps_everything(catalogue: str, patches: str, tree: Tree) -> None:
    before, times = tree(patches), {p: p.stat().st_mtime_ns for p in Path(patches).glob("*/c/**/0") if p.is_file()}
    assert len(times) == 16
    result = extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)
    assert result["made"] == 0
    assert tree(patches) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_resume_makes_only_the_missing_shard(catalogue: str, patches: str, tree: Tree) -> None:
    before = tree(patches)
    (Path(patches) / "store.json").unlink()
    (Path(patches) / part_name(3)).unlink()
    kept = {i: (Path(patches) / part_name(i)).stat().st_mtime_ns for i in (0, 1, 2, 4, 5, 6, 7)}
    assert extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)["made"] == 1
    assert tree(patches) == before
    assert {i: (Path(patches) / part_name(i)).stat().st_mtime_ns for i in kept} == kept


@pytest.mark.parametrize("shard", [0, 7])  # the last one is not full
@pytest.mark.parametrize("at", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("location", ["clean", "noisy", "part"])
def test_a_damaged_shard_is_made_anew(
    catalogue: str, patches: str, tree: Tree, shard: int, at: float, location: str
) -> None:
    before = tree(patches)
    flip(Path(patches) / (part_name(shard) if location == "part" else shard_object(location, shard)), at)
    assert extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)["made"] == 1
    assert tree(patches) == before


@pytest.mark.parametrize("name", ["clean/zarr.json", "noisy/zarr.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_damaged_array_metadata_is_mended(
    catalogue: str, patches: str, tree: Tree, name: str, content: bytes | None
) -> None:
    before = tree(patches)
    path = Path(patches) / name
    path.unlink() if content is None else path.write_bytes(content)
    extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)
    assert tree(patches) == before


def test_a_kill_before_the_first_byte_does_not_block_the_rerun(catalogue: str, tmp_path: Path) -> None:
    output = tmp_path / "p"
    output.mkdir()
    (output / ".plan.json.0badcafe").write_text("{")
    assert extract_patches(catalogue, str(output), geometry=Geometry(size=32))["patches"] == 36


def test_another_recipe_at_the_same_place_is_refused(catalogue: str, patches: str, tree: Tree) -> None:
    before = tree(patches)
    with pytest.raises(UserError, match=r"patches: holds a different patch store.*height .32 exists, 48 requested"):
        extract_patches(catalogue, patches, geometry=Geometry(size=48), shard=8)
    assert tree(patches) == before


def test_a_folder_with_other_files_is_refused(catalogue: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"mine: is not empty.*thesis\.tex"):
        extract_patches(catalogue, str(tmp_path / "mine"), geometry=Geometry(size=32))
    assert list_files(str(tmp_path / "mine")) == ["thesis.tex"]


def test_the_reader_refuses_an_unfinished_store(patches: str, tmp_path: Path) -> None:
    (Path(patches) / "store.json").unlink()
    with pytest.raises(UserError, match=r"store\.json: missing.*not finished"):
        PatchStore.open(patches)
    with pytest.raises(UserError, match=r"there is no store"):
        PatchStore.open(str(tmp_path / "nothing"))


@pytest.mark.parametrize("how", ["gone", "flipped"])
def test_reading_a_damaged_pair_is_an_error_and_not_zeros(patches: str, how: str) -> None:
    path = Path(patches) / shard_object("noisy", 1)
    path.unlink() if how == "gone" else flip(path, 0.2)
    store = PatchStore.open(patches)
    store.read(0)
    with pytest.raises(IntegrityError, match=r"patches/noisy/c/1/0/0/0: is (damaged|missing)"):
        store.read(8)


def test_there_is_no_pair_beyond_the_end(patches: str) -> None:
    for row in (-1, 36):
        with pytest.raises(UserError, match=rf"no pair {row}; it holds 36"):
            PatchStore.open(patches).read(row)


def test_black_patches_survive(folders: tuple[Path, Path], tmp_path: Path, save: Callable, pair: Callable) -> None:
    root, rules = folders
    for seed, name in enumerate(sorted(path.name for path in (root / "clean").iterdir())):
        for side, image in zip(("noisy", "clean"), pair(seed), strict=True):
            image[:64] = 0
            save(root / side / name, image)
    ingest(str(root), str(rules), str(tmp_path / "c"))
    extract_patches(str(tmp_path / "c"), str(tmp_path / "p"), geometry=Geometry(size=32), shard=8)
    store = PatchStore.open(str(tmp_path / "p"))
    assert list(store.verify()) == []
    dark = [k for k, row in enumerate(store.table.to_pylist()) if row["y"] < 64]
    assert len(dark) == 24
    assert all(not image.any() for k in dark for image in store.read(k))


def test_small_images_are_listed_and_none_at_all_is_an_error(
    folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    root, rules = folders
    for side, image in zip(("noisy", "clean"), pair(0, 96, 40), strict=True):
        save(root / side / "wall_100_1.png", image)
    ingest(str(root), str(rules), str(tmp_path / "c"))
    result = extract_patches(str(tmp_path / "c"), str(tmp_path / "p"), geometry=Geometry(size=64))
    assert [r["id"] for r in result["rejected"]] == ["wall_100_1"]
    assert "96 x 40" in result["rejected"][0]["reason"]
    with pytest.raises(UserError, match="smaller --size"):
        extract_patches(str(tmp_path / "c"), str(tmp_path / "q"), geometry=Geometry(size=128))
    assert not (tmp_path / "q").exists()


def test_mixed_kinds_are_refused(folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable) -> None:
    root, rules = folders
    for side, image in zip(("noisy", "clean"), pair(0, channels=1), strict=True):
        save(root / side / "wall_100_1.png", image)
    ingest(str(root), str(rules), str(tmp_path / "c"))
    with pytest.raises(UserError, match="several kinds"):
        extract_patches(str(tmp_path / "c"), str(tmp_path / "p"), geometry=Geometry(size=32))


def test_an_image_edited_after_ingestion_is_not_cut(
    catalogue: str, tmp_path: Path, pair: Callable, save: Callable
) -> None:
    row = load_catalogue(catalogue)[0].to_pylist()[1]
    save(Path(row["noisy"]), pair(99)[0])
    with pytest.raises(IntegrityError, match=r"street_800_2\.png: has changed"):
        extract_patches(catalogue, str(tmp_path / "p"), geometry=Geometry(size=32), shard=8)


def test_a_catalogue_made_anew_is_noticed_in_the_same_process(
    folders: tuple[Path, Path], catalogue: str, patches: str, tmp_path: Path, pair: Callable, save: Callable
) -> None:
    root, rules = folders
    save(root / "noisy" / "street_100_1.png", pair(99)[0])
    ingest(str(root), str(rules), catalogue)
    with pytest.raises(UserError, match=r"a different patch store.*catalogue"):
        extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)
    extract_patches(catalogue, str(tmp_path / "new"), geometry=Geometry(size=96))
    np.testing.assert_array_equal(np.moveaxis(PatchStore.open(str(tmp_path / "new")).read(0)[1], 0, -1), pair(99)[0])


def test_the_clean_image_of_repeats_is_made_once(
    tmp_path: Path, pair: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = pair(0, 48, 48)[1]
    noise = np.random.default_rng(0).normal(0, 6, (12, *clean.shape))
    pages = (clean + noise).round().clip(0, 255).astype(np.uint8)
    (tmp_path / "set").mkdir()
    for name, images in (("a", pages[:7]), ("b", pages[7:])):
        tifffile.imwrite(tmp_path / "set" / f"{name}.tif", images, photometric="rgb")
    ingest(str(tmp_path / "set"), "tiff", str(tmp_path / "c"))
    calls: list[str] = []
    for name in ("_mean", "_page"):
        whole = getattr(tiffpages, name)
        monkeypatch.setattr(tiffpages, name, lambda *given, name=name, whole=whole: calls.append(name) or whole(*given))
    extract_patches(str(tmp_path / "c"), str(tmp_path / "p"), geometry=Geometry(size=16), shard=18)
    assert Counter(calls) == {"_mean": 2, "_page": 2 * 12}  # each page as a noisy image and for the mean
    assert patches_module._last_images == {}
    store = PatchStore.open(str(tmp_path / "p"))
    assert store.layout.shards == 6
    images = {row["pair"]: row for row in load_catalogue(str(tmp_path / "c"))[0].to_pylist()}
    for k, row in enumerate(store.table.to_pylist()):
        for side, patch in zip(("clean", "noisy"), store.read(k), strict=True):
            window = read_one(images[row["pair"]], side)[row["y"] : row["y"] + 16, row["x"] : row["x"] + 16]
            np.testing.assert_array_equal(np.moveaxis(patch, 0, -1), window)


def test_a_dataset_that_moved_is_read_where_it_is_now(
    folders: tuple[Path, Path], catalogue: str, patches: str, tmp_path: Path, tree: Tree
) -> None:
    root, rules = folders
    before = tree(patches)
    ingest(str(root.rename(tmp_path / "elsewhere")), str(rules), catalogue)
    (Path(patches) / part_name(3)).unlink()
    assert extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=8)["made"] == 1
    assert tree(patches) == before
