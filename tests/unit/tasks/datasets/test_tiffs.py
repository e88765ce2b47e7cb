"""TIFF: pairs, stacks, repeats; every depth and packing that microscopes and converters write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

DEPTHS = ("uint8", "uint16", "float32")


def image(pair: Callable, seed: int, channels: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """A pair as written to a file: (H, W) or (H, W, 3)."""
    noisy, clean = pair(seed, 48, 56, channels, "uint16" if dtype == "float32" else dtype)
    if dtype == "float32":
        noisy, clean = (side.astype(np.float32) / np.float32(65535) for side in (noisy, clean))
    return (noisy[..., 0], clean[..., 0]) if channels == 1 else (noisy, clean)


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib"},
        {"tile": (16, 32), "compression": "zlib"},
        {"byteorder": ">", "rowsperstrip": 7},
        {"bigtiff": True},
        {"planarconfig": "separate"},
    ],
    ids=lambda options: "+".join(map(str, options)) or "plain",
)
def test_pairs_keep_every_level(
    tmp_path: Path, pair: Callable, ingested: Callable, dtype: str, channels: int, options: dict[str, Any]
) -> None:
    if "planarconfig" in options and channels == 1:
        pytest.skip("one channel has no planes")
    sides = dict(zip(("noisy", "clean"), image(pair, 0, channels, dtype), strict=True))
    for side, pixels in sides.items():
        stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
        photometric = "rgb" if channels == 3 else "minisblack"
        tifffile.imwrite(tmp_path / f"a_{side}.TIF", stored, photometric=photometric, **options)
    found = ingested(tmp_path, "tiff")
    row = found.rows["a"]
    assert (row["dtype"], row["height"], row["width"], row["channels"]) == (dtype, 48, 56, channels)
    assert row["full_scale"] == {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
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
    assert found.reasons == {"bad": "bad_noisy.tif holds 3 pages but bad_clean.tif holds 2"}
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
    np.testing.assert_allclose(row["noise_std"], noise.std(axis=(0, 1)) / row["full_scale"], rtol=1e-5)


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
    assert "one page and no partner" in found.reasons["single.tif"]
    assert "orientation is 6" in found.reasons["turned"]
    assert "torn_noisy.tif" in found.reasons["torn"]
    assert "page 1 is (12, 14" in found.reasons["thumbnail:0000"]
    assert "page 1 is (12, 14" in found.reasons["thumbnail:0001"]
    assert found.ignored == 1
