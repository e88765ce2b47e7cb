"""SIDD Small and Medium in the owners' folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.records import Found
from tasks.datasets.source import Source

FIRST = "0001_001_S6_00100_00060_3200_L"


def find(name: str, root: Path) -> Found:
    return adapter(name).find(Source.of(str(root)))


def reasons(found: Found) -> dict[str, str]:
    return {r.id: r.reason for r in found.rejected}


def test_small_is_catalogued_with_its_facts_and_every_level(sidd_small: Path, ingested: Callable) -> None:
    found = ingested(sidd_small, "sidd-small")
    facts = {pair: (r["scene"], r["camera"], r["iso"], r["split"], r["licence"]) for pair, r in found.rows.items()}
    assert facts == {
        f"{FIRST}_010": ("001", "S6", 100, "train", "MIT (SIDD)"),
        "0002_001_GP_00800_00350_3200_N_010": ("001", "GP", 800, "train", "MIT (SIDD)"),
        "0003_002_IP_00400_00350_5500_H_010": ("002", "IP", 400, "train", "MIT (SIDD)"),
    }
    assert {(r["dataset"], r["dtype"], r["data_range"]) for r in found.rows.values()} == {("sidd_small", "uint8", 255)}
    assert (found.reasons, found.ignored) == ({}, 1)
    for side, kind in (("noisy", "NOISY"), ("clean", "GT")):
        for pair, image in found.pixels(side):
            expected = np.asarray(Image.open(sidd_small / "Data" / pair[:-4] / f"{kind}_SRGB_010.PNG"))
            np.testing.assert_array_equal(image, expected)


def test_medium_pairs_each_frame_with_its_own_ground_truth(sidd_medium: Path, ingested: Callable) -> None:
    found = ingested(sidd_medium, "sidd-medium")
    assert len(found.rows) == 4
    for pair, row in found.rows.items():
        assert Path(row["noisy"]).name == f"{pair[:4]}_NOISY_SRGB_{pair[-3:]}.PNG"
        assert Path(row["clean"]).name == f"{pair[:4]}_GT_SRGB_{pair[-3:]}.PNG"
    assert {(r["camera"], r["iso"], r["scene"]) for r in found.rows.values()} == {
        ("S6", 100, "001"),
        ("G4", 1600, "003"),
    }


def test_a_file_of_another_instance_is_told(sidd_medium: Path) -> None:
    folder = sidd_medium / "Data" / FIRST
    moved = folder / "0005_GT_SRGB_010.PNG"
    (folder / "0001_GT_SRGB_010.PNG").rename(moved)
    found = find("sidd-medium", sidd_medium)
    assert len(found.records) == 3
    assert "has instance 0005, but the folder 0001" in reasons(found)[str(moved.relative_to(sidd_medium))]


def test_a_missing_half_is_told(sidd_small: Path) -> None:
    (sidd_small / "Data" / FIRST / "GT_SRGB_010.PNG").unlink()
    found = find("sidd-small", sidd_small)
    assert len(found.records) == 2
    assert "the clean image of Data/" in reasons(found)[f"{FIRST}_010"]


def test_stray_files_are_ignored_and_odd_folders_told(sidd_small: Path) -> None:
    (sidd_small / "Data" / FIRST / "preview.jpg").write_bytes(b"x")
    shutil.copytree(sidd_small / "Data" / FIRST, sidd_small / "Data" / "my_copy")
    found = find("sidd-small", sidd_small)
    assert len(found.records) == 3
    assert {Path(r.id).parent.name for r in found.rejected} == {"my_copy"}
    assert sorted(Path(p).name for p in found.ignored) == ["Scene_Instances.txt", "preview.jpg", "preview.jpg"]


def test_a_second_copy_of_an_instance_does_not_vanish(sidd_small: Path) -> None:
    shutil.copytree(sidd_small / "Data" / FIRST, sidd_small / "Backup" / FIRST)
    found = find("sidd-small", sidd_small)
    assert len(found.records) == 3
    first = found.records[0]
    assert Path(str(first.noisy)).parent == Path(str(first.clean)).parent
    assert [("duplicate" in r.reason, FIRST in r.id) for r in found.rejected] == [(True, True)] * 2


@pytest.mark.parametrize(("name", "layout"), [("sidd-medium", "sidd_small"), ("sidd-small", "sidd_medium")])
def test_the_wrong_folder_is_refused_with_what_was_expected(
    name: str, layout: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(layout)
    with pytest.raises(UserError, match=rf"{root.name}.*no .* images found; expected Data/"):
        find(name, root)


def test_16_bits_where_the_owners_ship_8_are_another_thing(sidd_small: Path, ingested: Callable) -> None:
    import imagecodecs

    for name in ("GT_SRGB_010.PNG", "NOISY_SRGB_010.PNG"):
        path = sidd_small / "Data" / FIRST / name
        path.write_bytes(imagecodecs.png_encode(np.asarray(Image.open(path)).astype(np.uint16) * 257))
    found = ingested(sidd_small, "sidd-small")
    assert len(found.rows) == 2
    assert "is uint16, but the dataset is uint8" in found.reasons[f"{FIRST}_010"]


def test_unknown_adapters_are_listed() -> None:
    with pytest.raises(UserError, match=r"'sid'.*sidd-medium, sidd-plus, sidd-small.*YAML"):
        adapter("sid")
