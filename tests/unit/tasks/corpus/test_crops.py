"""Which windows are cut, against brute force; the filter of flat ones; how hard a JPEG was compressed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pngmodel.errors import UserError
from tasks.corpus.crops import CropSettings, Window, Windows, count
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets.clean_images import CleanImage
from tasks.datasets.formats.jpeg_quality import jpeg_quality

Make = Callable[..., CorpusParameters]
SIZES = [(16, 16), (17, 16), (31, 33), (32, 48), (40, 100), (96, 64), (15, 100)]


def image(name: str, height: int, width: int) -> CleanImage:
    return CleanImage(name, height, width, 3, "uint8", name, "CC0", 0)


def starts(side: int, crop: int, stride: int) -> list[int]:
    """Corners along one side by hand: every multiple of the stride that fits, then the border."""
    if side < crop:
        return []
    found = [k for k in range(0, side, stride) if k + crop <= side]
    return found if found[-1] + crop == side else [*found, side - crop]


@pytest.mark.parametrize("stride", [None, 1, 5, 16, 30])
def test_a_grid_is_what_a_loop_finds(stride: int | None) -> None:
    cropping = CropSettings(crop=16, stride=stride)
    images = tuple(image(str(k), *size) for k, size in enumerate(SIZES))
    expected = [
        Window(k, y, x)
        for k, (height, width) in enumerate(SIZES)
        for y in starts(height, 16, stride or 16)
        for x in starts(width, 16, stride or 16)
    ]
    windows = Windows(images, cropping, 0)
    assert len(windows) == len(expected)
    assert [windows[k] for k in range(len(windows))] == expected
    assert [count(cropping, *size) for size in SIZES] == [
        sum(w.image == k for w in expected) for k in range(len(SIZES))
    ]


def test_filtered_windows_are_those_that_are_kept() -> None:
    images = (image("a", 32, 48), image("b", 16, 64), image("c", 48, 48))
    whole = Windows(images, CropSettings(crop=16), 0)
    kept = ((0, 2, 5), (3,), (1, 8))
    listed = [whole[k] for k in range(len(whole))]
    expected = [[w for w in listed if w.image == k][n] for k, numbers in enumerate(kept) for n in numbers]
    filtered = Windows(images, CropSettings(crop=16), 0, kept)
    assert [filtered[k] for k in range(len(filtered))] == expected


def test_the_centre() -> None:
    windows = Windows(
        tuple(image(str(k), *size) for k, size in enumerate(SIZES[:-1])), CropSettings(crop=16, crop_policy="centre"), 0
    )
    for k, (height, width) in enumerate(SIZES[:-1]):
        found = windows[k]
        assert (found.image, found.y, found.x) == (k, (height - 16) // 2, (width - 16) // 2)


def test_random_windows_reach_every_place_once_and_depend_on_image_and_seed_alone() -> None:
    cropping = CropSettings(crop=16, crop_policy="random", crops_per_image=3)
    many = Windows(tuple(image(str(k), 19, 16) for k in range(700)), cropping, 3)
    assert len(many) == 2100
    corners = [(many[k].y, many[k].x) for k in range(2100)]
    assert all(len({*corners[k : k + 3]}) == 3 for k in range(0, 2100, 3))  # equal windows would get equal noise
    assert {x for _, x in corners} == {0}
    for location in range(3):
        assert (np.bincount([y for y, _ in corners[location::3]], minlength=4) > 130).all()  # 175 of each expected
    two = Windows((image("b", 40, 40), image("5", 19, 16)), cropping, 3)
    assert [(two[3 + k].y, two[3 + k].x) for k in range(3)] == corners[15:18]
    other = Windows(many.images, cropping, 4)
    assert [(other[k].y, other[k].x) for k in range(60)] != corners[:60]
    small = Windows((image("a", 17, 16),), cropping.model_copy(update={"crops_per_image": 9}), 3)
    assert sorted((small[k].y, small[k].x) for k in range(len(small))) == [(0, 0), (1, 0)]


def test_numbers_of_a_billion_windows_are_arithmetic() -> None:
    many = tuple(image(str(k), 16 * 1000, 16 * 1000) for k in range(1000))
    windows = Windows(many, CropSettings(crop=16), 0)
    assert len(windows) == 10**9
    assert windows[10**9 - 1] == Window(999, 16 * 999, 16 * 999)
    assert windows[7_000_000 + 1003] == Window(7, 16, 16 * 3)


def test_flat_windows_are_left_out(parameters: Make, tmp_path: Path, save: Callable) -> None:
    rng = np.random.default_rng(0)
    half = rng.integers(0, 256, (64, 96, 3), np.uint8)
    half[:, :32] = (10, 200, 90)  # a coloured wall is flat
    half[:32, 32:64] = 100 + 2 * (rng.random((32, 32, 1)) > 0.5)  # std 1 of 255
    save(tmp_path / "photos" / "half.png", half)
    save(tmp_path / "photos" / "wall.png", np.full((64, 64, 3), (10, 200, 90), np.uint8))
    plan = plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "photos"), min_clean_std=0.02))
    found = [plan.clean_index.windows[k] for k in range(len(plan.clean_index.windows))]
    assert found == [Window(0, 0, 64), Window(0, 32, 32), Window(0, 32, 64)]
    assert [(r.id, r.reason) for r in plan.clean_index.source.rejected] == [
        ("wall.png", "all windows are flatter than 0.02")
    ]
    lower = plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "photos"), min_clean_std=0.001))
    assert len(lower.clean_index.windows) == 4
    with pytest.raises(UserError, match=r"no clean image is large enough for a patch.*flatter than 0\.9"):
        plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "photos"), min_clean_std=0.9))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_quality_is_what_pillow_was_told(mode: str) -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).convert(mode)
    for quality in range(5, 101):
        for options in ({}, {"progressive": True}):
            file = io.BytesIO()
            photo.save(file, "JPEG", quality=quality, **options)
            assert jpeg_quality(file.getvalue()) == quality


def test_quality_of_what_is_no_jpeg_and_of_a_cameras_own_tables() -> None:
    photo = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    file = io.BytesIO()
    photo.save(file, "PNG")
    assert jpeg_quality(file.getvalue()) is None
    for level, expected in ((1, range(98, 101)), (16, range(60, 96)), (200, range(1, 20))):
        file = io.BytesIO()
        photo.save(file, "JPEG", qtables=[[level] * 64, [level] * 64])
        assert jpeg_quality(file.getvalue()) in expected


def test_hard_compressed_files_are_left_out(parameters: Make, tmp_path: Path, pair: Callable[..., Any]) -> None:
    (tmp_path / "photos").mkdir()
    for quality in (40, 90):
        Image.fromarray(pair(quality, 64, 64)[1]).save(tmp_path / "photos" / f"q{quality}.jpg", quality=quality)
    Image.fromarray(pair(1, 64, 64)[1]).save(tmp_path / "photos" / "lossless.png")
    plan = plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "photos"), min_jpeg_quality=80))
    assert [i.id for i in plan.clean_index.source.images] == ["lossless.png", "q90.jpg"]
    assert [(r.id, r.reason) for r in plan.clean_index.source.rejected] == [
        ("q40.jpg", "q40.jpg: the JPEG quality is 40, less than 80")
    ]
