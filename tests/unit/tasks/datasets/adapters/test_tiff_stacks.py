"""TIFF: pairs, stacks, repeats; every depth and packing that microscopes and converters write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pngmodel.errors import UserError

DEPTHS = ("uint8", "uint16", "float32")


def image(pair: Callable, seed: int, channels: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """A pair as written to a file: (H, W) or (H, W, 3)."""
    noisy, clean = pair(seed, 48, 56, channels, "uint16" if dtype == "float32" else dtype)
    if dtype == "float32":
        noisy, clean = (side.astype(np.float32) / np.float32(65535) for side in (noisy, clean))
    return (noisy[..., 0], clean[..., 0]) if channels == 1 else (noisy, clean)


FORMS: list[dict[str, Any]] = [
    {},
    {"compression": "lzw", "predictor": True},
    {"compression": "zlib"},
    {"tile": (16, 32), "compression": "zlib"},
    {"byteorder": ">", "rowsperstrip": 7},
    {"bigtiff": True},
]
PLANES = {"planarconfig": "separate"}  # of three channels


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize(
    ("channels", "options"),
    [*((channels, options) for channels in (1, 3) for options in FORMS), (3, PLANES)],
    ids=lambda value: "+".join(map(str, value)) or "plain" if isinstance(value, dict) else str(value),
)
def test_pairs_keep_every_level(
    tmp_path: Path, pair: Callable, ingested: Callable, dtype: str, channels: int, options: dict[str, Any]
) -> None:
    sides = dict(zip(("noisy", "clean"), image(pair, 0, channels, dtype), strict=True))
    for side, pixels in sides.items():
        stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
        photometric = "rgb" if channels == 3 else "minisblack"
        known = {"metadata": None} if "planarconfig" in options else {}  # or the planes were a stack of grey pages
        tifffile.imwrite(tmp_path / f"a_{side}.TIF", stored, photometric=photometric, **known, **options)
    found = ingested(tmp_path, "tiff")
    row = found.rows["a"]
    assert (row["dtype"], row["height"], row["width"], row["channels"]) == (dtype, 48, 56, channels)
    assert row["data_range"] == {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    for side, pixels in sides.items():
        ((_, read),) = found.pixels(side)
        np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)


def test_stacks_are_paired_page_by_page_or_with_one_clean_page(
    tmp_path: Path, pair: Callable, ingested: Callable
) -> None:
    pages = [image(pair, k, 1, "uint16") for k in range(3)]
    tifffile.imwrite(tmp_path / "s_noisy.tif", np.stack([p[0] for p in pages]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "s_clean.tif", np.stack([p[1] for p in pages]), photometric="minisblack")
    rng = np.random.default_rng(0)
    repeats = np.stack([pages[0][1] + rng.integers(0, 2000, pages[0][1].shape, np.uint16) for _ in range(2)])
    tifffile.imwrite(tmp_path / "one_noisy.tif", repeats, photometric="minisblack")
    tifffile.imwrite(tmp_path / "one_clean.tif", pages[0][1])
    tifffile.imwrite(tmp_path / "bad_noisy.tif", np.stack([p[0] for p in pages]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "bad_clean.tif", np.stack([p[1] for p in pages[:2]]), photometric="minisblack")
    found = ingested(tmp_path, "tiff")
    assert list(found.rows) == ["one:0000", "one:0001", "s:0000", "s:0001", "s:0002"]
    assert found.reasons == {"bad": "bad_noisy.tif has 3 pages, but bad_clean.tif has 2"}
    expected = {f"s:{k:04d}": p for k, p in enumerate(pages)} | {
        f"one:{k:04d}": (page, pages[0][1]) for k, page in enumerate(repeats)
    }
    for k, side in enumerate(("noisy", "clean")):
        for name, read in found.pixels(side):
            np.testing.assert_array_equal(read[..., 0], expected[name][k])
    assert {r["scene"] for r in found.rows.values()} == {"one", "s"}


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["field_7.tif", "raw/captures.tif"])
def test_repeats_stand_against_their_mean(
    tmp_path: Path, pair: Callable, ingested: Callable, dtype: str, channels: int, name: str
) -> None:
    scene = image(pair, 0, channels, dtype)[1]
    step = {"uint8": 6, "uint16": 900, "float32": 0.02}[dtype]
    rng = np.random.default_rng(1)
    stack = np.stack([(scene + step * (2 + rng.standard_normal(scene.shape))).clip(0).astype(dtype) for _ in range(5)])
    (tmp_path / "set" / name).parent.mkdir(parents=True)
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "set" / name, stack, photometric=photometric, compression="zlib")
    found = ingested(tmp_path / "set", "tiff")
    assert len(found.rows) == 5  # shots of one scene are no duplicates
    mean = stack.mean(axis=0, dtype=np.float64)
    mean = mean.round().astype(dtype) if dtype != "float32" else mean.astype(dtype)
    for k, (_, read) in enumerate(found.pixels("noisy")):
        np.testing.assert_array_equal(read.reshape(scene.shape), stack[k])
    for _, read in found.pixels("clean"):
        np.testing.assert_array_equal(read.reshape(scene.shape), mean)
    noise = (stack[2].astype(np.float64) - mean).reshape(48, 56, -1)
    row = sorted(found.rows.items())[2][1]
    np.testing.assert_allclose(row["noise_std"], noise.std(axis=(0, 1)) / row["data_range"], rtol=1e-5)


def test_files_that_cannot_be_used_are_told_and_the_rest_goes_on(
    tmp_path: Path, pair: Callable, ingested: Callable
) -> None:
    noisy, clean = image(pair, 0, 1, "uint8")
    tifffile.imwrite(tmp_path / "good_noisy.tif", noisy)
    tifffile.imwrite(tmp_path / "good_clean.tif", clean)
    tifffile.imwrite(tmp_path / "single.tif", noisy)
    tifffile.imwrite(tmp_path / "turned_noisy.tif", noisy, extratags=[(274, "H", 1, 6, True)])
    tifffile.imwrite(tmp_path / "turned_clean.tif", clean)
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as file:
        file.write(noisy)
        file.write(noisy[::4, ::4])
    (tmp_path / "torn_noisy.tif").write_bytes((tmp_path / "good_noisy.tif").read_bytes()[:400])
    tifffile.imwrite(tmp_path / "torn_clean.tif", clean)
    (tmp_path / "notes.txt").write_text("x")
    found = ingested(tmp_path, "tiff")
    assert list(found.rows) == ["good"]
    assert "has a single page and no counterpart" in found.reasons["single.tif"]
    assert "orientation is 6" in found.reasons["turned"]
    assert "torn_noisy.tif" in found.reasons["torn"]
    assert "page 1 is (12, 14" in found.reasons["thumbnail:0000"]
    assert "page 1 is (12, 14" in found.reasons["thumbnail:0001"]
    assert found.ignored == 1


FORMS = {
    "truncated": {"truncate": True, "photometric": "minisblack"},
    "truncated big-endian": {"truncate": True, "photometric": "minisblack", "byteorder": ">", "bigtiff": True},
    "ImageJ": {"imagej": True},
    "ImageJ beyond 4 GB": {"imagej": True, "truncate": True},
    "planes": {},  # stored as one colour image
    "plane by plane": {"compression": "zlib"},
}


def repeats(pair: Callable, count: int, dtype: str = "uint16") -> np.ndarray:
    scene = image(pair, 0, 1, dtype)[1]
    rng = np.random.default_rng(3)
    step = {"uint8": 20, "uint16": 900, "float32": 0.02}[dtype]
    return np.stack([(scene + step * rng.random(scene.shape)).astype(dtype) for _ in range(count)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("count", [3, 4, 5])
def test_no_image_of_a_stack_is_dropped_whatever_form_it_has(
    tmp_path: Path, pair: Callable, ingested: Callable, form: str, dtype: str, count: int
) -> None:
    stack = repeats(pair, count, dtype)
    (tmp_path / "pair").mkdir()
    tifffile.imwrite(tmp_path / "pair" / "s_noisy.tif", stack, **FORMS[form])
    tifffile.imwrite(tmp_path / "pair" / "s_clean.tif", image(pair, 0, 1, dtype)[1])
    (tmp_path / "alone").mkdir()
    tifffile.imwrite(tmp_path / "alone" / "s.tif", stack, **FORMS[form])
    mean = stack.mean(axis=0, dtype=np.float64)
    means = {"pair": image(pair, 0, 1, dtype)[1], "alone": (mean if dtype == "float32" else mean.round()).astype(dtype)}
    for folder, clean in means.items():
        found = ingested(tmp_path / folder, "tiff")
        assert (found.reasons, list(found.rows)) == ({}, [f"s:{k:04d}" for k in range(count)])
        for k, (_, read) in enumerate(found.pixels("noisy")):
            np.testing.assert_array_equal(read[..., 0], stack[k])
        for _, read in found.pixels("clean"):
            np.testing.assert_array_equal(read[..., 0], clean)


@pytest.mark.parametrize("form", ["truncated", "ImageJ beyond 4 GB"])
def test_colour_images_behind_one_directory(tmp_path: Path, pair: Callable, ingested: Callable, form: str) -> None:
    stack = np.stack([repeats(pair, 5, "uint8")] * 3, axis=-1)
    tifffile.imwrite(tmp_path / "s.tif", stack, **{**FORMS[form], "photometric": "rgb"})
    for k, (_, read) in enumerate(ingested(tmp_path, "tiff").pixels("noisy")):
        np.testing.assert_array_equal(read, stack[k])


def test_stacks_that_do_not_hold_what_they_promise_are_told(tmp_path: Path, pair: Callable, ingested: Callable) -> None:
    stack = repeats(pair, 5)
    tifffile.imwrite(tmp_path / "good.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "truncated.tif", stack, **FORMS["truncated"])
    tifffile.imwrite(tmp_path / "imagej.tif", stack, **FORMS["ImageJ beyond 4 GB"])
    for name in ("truncated", "imagej"):
        content = (tmp_path / f"{name}.tif").read_bytes()
        (tmp_path / f"{name}.tif").write_bytes(content[:-1000])
    with tifffile.TiffWriter(tmp_path / "both.tif") as file:
        file.write(stack, **FORMS["truncated"])
        file.write(stack[0], photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "last.tif") as file:
        file.write(stack[:3], photometric="minisblack")
        file.write(stack[0], photometric="minisblack", metadata={"name": "another"})
        file.write(stack, **FORMS["truncated"])
    tifffile.imwrite(tmp_path / "packed.tif", stack[0], description="ImageJ=1.53\nimages=5\n", compression="zlib")
    (tmp_path / "absurd.tif").write_bytes(
        (tmp_path / "good.tif").read_bytes().replace(b'"shape": [5, 48, 56]}', b'"truncated":1,"shape":')
    )
    found = ingested(tmp_path, "tiff")
    assert list(found.rows) == [f"good:{k:04d}" for k in range(5)]
    for name in ("truncated", "imagej", "packed"):
        assert "promises 5 images" in found.reasons[f"{name}.tif"]
    assert "promises 6 images in 2 directories" in found.reasons["both.tif"]
    assert "promises 9 images in 5 directories" in found.reasons["last.tif"]
    assert "absurd.tif" in found.reasons


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["truncated", "ImageJ beyond 4 GB"])
def test_a_hidden_stack_is_no_single_image(tmp_path: Path, pair: Callable, ingested: Callable, form: str) -> None:
    stack = repeats(pair, 5)
    for name, side in (("a", stack), ("b", stack[0])):
        tifffile.imwrite(tmp_path / f"{name}_noisy.tif", side, **FORMS[form])
        tifffile.imwrite(tmp_path / f"{name}_clean.tif", image(pair, 0, 1, "uint16")[1])
    found = ingested(tmp_path, "folders")
    assert list(found.rows) == ["b"]
    assert "holds 5 pages; the adapter `tiff`" in found.reasons["a"]


@pytest.mark.parametrize("writer", ["page by page", "directories last", "big"])
@pytest.mark.parametrize("side", ["repeats", "pair"])
def test_a_stack_that_was_cut_off_between_pages_is_no_shorter_stack(
    tmp_path: Path, pair: Callable, ingested: Callable, writer: str, side: str
) -> None:
    stack = repeats(pair, 6, "uint8")
    path = tmp_path / ("s_noisy.tif" if side == "pair" else "s.tif")
    if writer == "page by page":  # a directory, its pixels, the next directory: as libtiff writes
        first, *rest = (Image.fromarray(page) for page in stack)
        first.save(path, save_all=True, append_images=rest)
    else:
        tifffile.imwrite(path, stack, photometric="minisblack", bigtiff=writer == "big")
    whole = path.read_bytes()
    end = len(whole) * 3 // 4 if side == "pair" else len(whole) - 8  # a pair that misses only its last page is listed
    for length in range(len(whole) // 3, end, len(whole) // 11):
        path.write_bytes(whole[:length])
        if side == "pair":
            tifffile.imwrite(tmp_path / "s_clean.tif", stack[0])
        with pytest.raises(UserError, match=r"s(_noisy)?\.tif: (is truncated|its pages have no mean)"):
            ingested(tmp_path, "tiff")
