"""Where clean images and references come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.clean_images import open_clean, read_clean
from tasks.datasets.reference_pairs import open_references, planned_references
from tasks.stores.patch_store import PatchStore


def test_the_shipped_samples_are_aligned_pairs() -> None:
    references, clean = open_references("shipped"), open_clean("shipped")
    assert len(references.references) == len(clean.images) == 8
    assert {r.camera for r in references.references} == {"S6", "GP"}
    for k in (0, 7):
        noisy, truth = references.read(k)
        assert noisy.shape == truth.shape == (clean.images[k].height, clean.images[k].width, 3)
        np.testing.assert_array_equal(truth, clean.read(k))
        assert 1 < np.abs(noisy.astype(int) - truth).mean() < 50
        assert np.corrcoef(noisy.mean((0, 2)), truth.mean((0, 2)))[0, 1] > 0.8


def test_a_patch_store_gives_its_patches(patches: str) -> None:
    references, clean, store = open_references(patches), open_clean(patches), PatchStore.open(patches)
    assert len(references.references) == len(clean.images) == 36
    assert references.references[4].id == clean.images[4].id
    truth, noisy = (np.moveaxis(x, 0, -1) for x in store.read(4))
    for found, expected in zip(references.read(4), (noisy, truth), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(clean.read(4), truth)
    assert {i.licence for i in clean.images} == {"CC0"}


def test_a_catalogue_gives_whole_images(
    catalogue: str, folders: tuple[Path, Path], pair: Callable, save: Callable
) -> None:
    references, clean = open_references(catalogue), open_clean(catalogue)
    assert [r.id for r in references.references] == [i.id for i in clean.images]
    assert (references.references[1].camera, references.references[1].iso) == ("GP", 800)
    for found, expected in zip(references.read(1), pair(1), strict=True):
        np.testing.assert_array_equal(found, expected)
    save(folders[0] / "clean" / "street_800_2.png", pair(7)[1])
    with pytest.raises(IntegrityError, match=r"street_800_2\.png: has changed"):
        clean.read(1)


def test_a_folder_gives_its_images_and_lists_the_rest(folders: tuple[Path, Path], pair: Callable) -> None:
    root = folders[0] / "clean"
    (root / "wall_100_1.png").write_bytes(b"half a file")
    (root / "notes.txt").write_text("not an image")
    source = open_clean(str(root))
    assert [i.id for i in source.images] == ["street_100_1.png", "street_800_2.png", "wall_100_2.png"]
    assert [r.id for r in source.rejected] == ["wall_100_1.png"]
    assert "is not an image" in source.rejected[0].reason
    np.testing.assert_array_equal(source.read(1), pair(1)[1])


def test_the_digest_follows_content_and_not_place(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root = folders[0] / "clean"
    first = open_clean(str(root)).digest
    moved = root.rename(tmp_path / "moved")
    assert open_clean(str(moved)).digest == first
    (moved / "wall_100_1.png").unlink()
    assert open_clean(str(moved)).digest != first


def test_a_change_between_plan_and_work_is_noticed(
    folders: tuple[Path, Path], patches: str, catalogue: str, pair: Callable, save: Callable
) -> None:
    root = folders[0] / "clean"
    source = open_clean(str(root))
    save(root / "street_100_1.png", pair(5)[1])
    with pytest.raises(IntegrityError, match=r"street_100_1\.png: has changed"):
        read_clean(str(root), source.digest, source.images[0])
    assert open_clean(str(root)).digest != source.digest
    with pytest.raises(IntegrityError, match="changed since this run was planned"):
        planned_references(patches, open_references(catalogue).digest)


@pytest.mark.parametrize("opener", [open_clean, open_references])
def test_nothing_usable_is_explained(opener: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: .*'shipped'"):
        opener(str(tmp_path / "nothing"))


def test_only_damaged_images_are_an_error_with_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no usable clean images; first reason: .*a\.png"):
        open_clean(str(tmp_path))
