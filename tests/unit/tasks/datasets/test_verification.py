"""Statistics of verified pairs against brute force in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile

from tasks.datasets.formats.mat_file import block_part
from tasks.datasets.formats.tiff_pages import MEAN, page_part
from tasks.datasets.records import PairRecord
from tasks.datasets.verification import Group, check_group, grouped, pixel_digest

RECORD = PairRecord("p", "d", "s", None, None, "", "", "CC0")


def written(tmp_path: Path, noisy: np.ndarray, clean: np.ndarray) -> PairRecord:
    for side, image in (("noisy", noisy), ("clean", clean)):
        photometric = "rgb" if image.shape[-1] == 3 else "minisblack"
        tifffile.imwrite(tmp_path / f"{side}.tif", image.squeeze(), photometric=photometric)
    return replace(RECORD, noisy=str(tmp_path / "noisy.tif"), clean=str(tmp_path / "clean.tif"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("height", [60, 700])
def test_noise_is_measured_as_brute_force_does(
    tmp_path: Path, pair: Callable, dtype: str, channels: int, height: int
) -> None:
    noisy, clean = pair(4, height, 90, channels, "uint16" if dtype == "float32" else dtype)
    if dtype == "float32":
        noisy, clean = noisy / np.float32(3), clean / np.float32(3)
    (found,) = check_group(Group((written(tmp_path, noisy, clean),), 2.0))
    assert found.facts is not None
    noise = noisy.astype(np.float64) - clean.astype(np.float64)
    np.testing.assert_allclose(found.facts["noise_mean"], noise.mean(axis=(0, 1)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.facts["noise_std"], noise.std(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(found.facts["mean"], clean.mean(axis=(0, 1), dtype=np.float64), rtol=1e-7)
    assert found.facts["low"] == min(noisy.min(), clean.min())
    assert found.facts["high"] == max(noisy.max(), clean.max())
    lags = []
    for channel in np.moveaxis(noise - noise.mean(axis=(0, 1)), -1, 0):
        down, across = (channel[1:] * channel[:-1]).mean(), (channel[:, 1:] * channel[:, :-1]).mean()
        lags.append((down + across) / 2 / channel.var())
    assert found.facts["noise_lag1"] == pytest.approx(np.mean(lags), abs=0.015)
    assert found.facts["noise_lag1"] == pytest.approx(0.5, abs=0.1)  # the fixture blurs white noise by 2 x 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_digest_is_of_levels_and_not_of_memory(order: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    expected = hashlib.sha256(b"(20, 30, 3) uint8 " + image.tobytes()).hexdigest()
    assert pixel_digest(np.asarray(image, order=order)) == expected
    assert pixel_digest(image.astype(np.uint16)) != expected


def test_a_group_shares_its_files_and_stays_small(tmp_path: Path) -> None:
    records = [
        replace(RECORD, pair=f"{k}", noisy=f"n{k // 200}.mat", clean="c.mat", noisy_part="x", clean_part="y")
        for k in range(400)
    ] + [replace(RECORD, pair=f"f{k}", noisy=f"{k}.png", clean=f"{k}_.png") for k in range(3)]
    groups = grouped(records, 1.0)
    assert [len(g.records) for g in groups] == [160, 40, 160, 40, 1, 1, 1]
    assert [r for g in groups for r in g.records] == records


def test_one_bad_part_does_not_take_the_others_with_it(tmp_path: Path, pair: Callable) -> None:
    noisy, clean = (np.stack([pair(seed, 40, 40)[side] for seed in range(5)]) for side in range(2))
    noisy = noisy.copy()
    noisy[2] = 7
    for name, array in (("noisy", noisy), ("clean", clean)):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"b": array})
    locations = {"noisy": str(tmp_path / "noisy.mat"), "clean": str(tmp_path / "clean.mat")}
    index = (0, 1, 9, 2, 3, 4)  # there is no block 9
    records = [
        replace(RECORD, noisy_part=block_part("b", k), clean_part=block_part("b", k), **locations) for k in index
    ]
    found = check_group(Group(tuple(records), 2.0))
    assert [f.facts is not None for f in found] == [True, True, False, False, True, True]
    assert "no image at 9" in str(found[2].reason)
    assert "constant (7 everywhere)" in str(found[3].reason)
    assert [f.facts["noisy_sha256"] for f in found if f.facts] == [pixel_digest(noisy[k]) for k in (0, 1, 3, 4)]


def test_a_stack_without_a_mean_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.datasets.formats import tiff_pages as tiffpages

    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        for side in (*[40] * 30, 20):
            file.write(rng.integers(0, 255, (side, side), np.uint8))
    location = str(tmp_path / "s.tif")
    records = [
        replace(RECORD, pair=str(k), noisy=location, clean=location, noisy_part=page_part(k), clean_part=MEAN)
        for k in range(31)
    ]
    reads: list[int] = []
    page = tiffpages._page
    monkeypatch.setattr(tiffpages, "_page", lambda file, index, name: reads.append(index) or page(file, index, name))
    found = check_group(Group(tuple(records), 2.0))
    assert all("its pages have no mean" in str(f.reason) for f in found)
    assert len(reads) < 2 * 31


def test_a_grey_card_is_a_scene_too(tmp_path: Path) -> None:
    clean = np.full((64, 64, 3), 120, np.uint8)
    noisy = np.random.default_rng(3).normal(120, 6, clean.shape).round().astype(np.uint8)
    assert check_group(Group((written(tmp_path, noisy, clean),), 2.0))[0].reason is None
    assert "constant" in str(check_group(Group((written(tmp_path, clean, noisy),), 2.0))[0].reason)
