"""Ingestion: only pairs that can be used get into the catalogue, the rest is listed with reasons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.catalogue import load_catalogue, read_catalogued
from tasks.datasets.ingest import IngestSettings, RejectedError, ingest
from tasks.stores.io.tables import decode_table


def rows(url: str) -> dict[str, dict]:
    return {r["pair"]: r for r in load_catalogue(url)[0].to_pylist()}


def test_every_usable_pair_gets_a_row(sidd_small: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = ingest(
        str(sidd_small), "sidd-small", str(tmp_path / "c"), progress=lambda done, total: steps.append((done, total))
    )
    assert (result["pairs"], result["rejected"]) == (3, [])
    assert steps == [(1, 3), (2, 3), (3, 3)]
    found = rows(str(tmp_path / "c"))
    assert {(r["height"], r["width"], r["channels"], r["dtype"]) for r in found.values()} == {(80, 96, 3, "uint8")}
    in_order = list(found.values())
    for row, image in zip(in_order, read_catalogued(in_order, "noisy"), strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(row["noisy"])))


def test_unusable_pairs_are_kept_out_with_a_reason(
    folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    root, rules = folders
    truncated = root / "noisy" / "street_100_1.png"
    truncated.write_bytes(truncated.read_bytes()[:500])
    save(root / "clean" / "street_800_2.png", pair(0, 96, 64)[1])
    (root / "noisy" / "wall_100_1.png").unlink()
    (root / "clean" / "wall_100_1.png").unlink()
    save(root / "noisy" / "wall_100_1.tif", pair(0, dtype="uint16")[0])
    save(root / "clean" / "wall_100_1.tif", pair(0)[1])
    result = ingest(str(root), str(rules), str(tmp_path / "c"))
    assert list(rows(str(tmp_path / "c"))) == ["wall_100_2"]
    reasons = {r["id"]: r["reason"] for r in result["rejected"]}
    assert str(truncated) in reasons["street_100_1"]
    assert "truncated" in reasons["street_100_1"]
    assert "(96, 96, 3)" in reasons["street_800_2"]
    assert "(96, 64, 3)" in reasons["street_800_2"]
    assert "uint16" in reasons["wall_100_1"]
    assert json.loads((tmp_path / "c" / "rejected.json").read_text())["rejected"] == result["rejected"]


def test_nothing_usable_is_an_error_and_its_reasons_are_kept(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    for path in (root / "noisy").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no usable pairs \(4 rejected, see .*street_100_1\.png: is empty"):
        ingest(str(root), str(rules), str(tmp_path / "c"))
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["failed.json"]
    assert len(json.loads((tmp_path / "c" / "failed.json").read_text())["rejected"]) == 4


def test_too_many_rejected_pairs_end_it_where_a_limit_is_set(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    (root / "noisy" / "street_100_1.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 pairs rejected and 3 usable, so the rejected share is 25\.0%, but max_rejected is 10\.0%"
    ):
        ingest(str(root), str(rules), str(tmp_path / "c"), IngestSettings(max_rejected=0.1))
    assert not (tmp_path / "c" / "catalogue.json").exists()
    result = ingest(str(root), str(rules), str(tmp_path / "c"), IngestSettings(max_rejected=0.25))
    assert result["pairs"] == 3
    assert not (tmp_path / "c" / "failed.json").exists()


def test_the_digest_is_of_the_content_and_not_of_the_place(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    first = ingest(str(root), str(rules), str(tmp_path / "a"))["digest"]
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert ingest(str(moved), str(rules), str(tmp_path / "b"))["digest"] == first
    path = moved / "noisy" / "wall_100_1.png"
    image = np.asarray(Image.open(path)).copy()
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)
    assert ingest(str(moved), str(rules), str(tmp_path / "b"))["digest"] != first


def test_validation_scenes_overrule_the_adapter(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    ingest(str(root), str(rules), str(tmp_path / "c"), IngestSettings(validation_scenes=["street"]))
    found = {pair: r["split"] for pair, r in rows(str(tmp_path / "c")).items()}
    assert found == {
        "street_100_1": "validation",
        "street_800_2": "validation",
        "wall_100_1": "train",
        "wall_100_2": "validation",
    }


def test_unknown_validation_scenes_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\['street2'\].*street, wall"):
        ingest(
            str(folders[0]), str(folders[1]), str(tmp_path / "c"), IngestSettings(validation_scenes=["street2", "wall"])
        )


def test_a_damaged_table_is_found(catalogue: str) -> None:
    path = Path(catalogue) / "catalogue.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"catalogue\.parquet.*pngnoise ingest"):
        load_catalogue(catalogue)


def test_a_catalogue_without_its_record_is_refused(catalogue: str) -> None:
    (Path(catalogue) / "catalogue.json").unlink()
    with pytest.raises(UserError, match=r"catalogue\.json: missing.*pngnoise ingest"):
        load_catalogue(catalogue)


def test_a_record_that_lost_its_content_is_found(catalogue: str) -> None:
    (Path(catalogue) / "catalogue.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"catalogue\.json: key 'format': Field required.*ingest"):
        load_catalogue(catalogue)


def test_an_image_that_changed_later_is_found(catalogue: str, pair: Callable, save: Callable) -> None:
    row = load_catalogue(catalogue)[0].to_pylist()[0]
    save(Path(row["clean"]), pair(77)[1])
    with pytest.raises(IntegrityError, match=r"street_100_1\.png: has changed"):
        list(read_catalogued([row], "clean"))


def test_another_store_at_the_output_is_left_alone(
    folders: tuple[Path, Path], patches: str, tree: Callable[[str], dict[str, bytes]]
) -> None:
    before = tree(patches)
    with pytest.raises(UserError, match=r"patches: contains another store"):
        ingest(str(folders[0]), str(folders[1]), patches)
    assert tree(patches) == before


def test_the_table_is_sorted_and_typed(catalogue: str) -> None:
    content = (Path(catalogue) / "catalogue.parquet").read_bytes()
    table = decode_table(content, "catalogue.parquet")
    pairs = table.column("pair").to_pylist()
    assert pairs == sorted(pairs)
    assert str(table.schema.field("iso").type) == "int32"


def test_a_share_of_scenes_is_kept_out_whole_and_always_the_same(
    tmp_path: Path, pair: Callable, save: Callable
) -> None:
    for seed in range(20):
        for side, image in zip(("noisy", "clean"), pair(seed, 40, 40), strict=True):
            save(tmp_path / "set" / side / f"{seed:02d}.png", image)
    settings = IngestSettings(validation_share=0.2)
    ingest(str(tmp_path / "set"), "folders", str(tmp_path / "a"), settings)
    ingest(str(tmp_path / "set"), "folders", str(tmp_path / "b"), settings)
    splits = {pair: r["split"] for pair, r in rows(str(tmp_path / "a")).items()}
    assert list(splits.values()).count("validation") == 4
    assert splits == {pair: r["split"] for pair, r in rows(str(tmp_path / "b")).items()}


def test_files_of_systems_are_ignored_and_counted(sidd_small: Path, tmp_path: Path) -> None:
    instance = sidd_small / "Data" / "0001_001_S6_00100_00060_3200_L"
    for name in (".DS_Store", "Thumbs.db", "._GT_SRGB_010.PNG"):
        (instance / name).write_bytes(b"x")
    result = ingest(str(sidd_small), "sidd-small", str(tmp_path / "c"))
    assert (result["pairs"], result["rejected"], result["ignored"]) == (3, [], 4)
    listed = json.loads((tmp_path / "c" / "rejected.json").read_text())["ignored"]
    assert sorted(Path(p).name for p in listed) == [
        ".DS_Store",
        "._GT_SRGB_010.PNG",
        "Scene_Instances.txt",
        "Thumbs.db",
    ]


def float_pairs(folder: Path, pair: Callable, peak: float) -> None:
    """Three float32 TIFF pairs of this full scale, one noisy value a little above white."""
    folder.mkdir()
    for k in range(3):
        noisy, clean = (image.astype(np.float32) / 255 * peak for image in pair(k))
        noisy[0, 0, 0] = 1.2 * peak
        clean[0, 0, 0] = peak
        for side, image in (("noisy", noisy), ("clean", clean)):
            tifffile.imwrite(folder / f"{k}_{side}.tif", image, photometric="rgb")


@pytest.mark.parametrize("peak", [1.0, 255.0, 65535.0])
def test_noise_above_white_does_not_change_what_white_is(peak: float, tmp_path: Path, pair: Callable) -> None:
    float_pairs(tmp_path / "d", pair, peak)
    ingest(str(tmp_path / "d"), "tiff", str(tmp_path / "c"))
    for row in rows(str(tmp_path / "c")).values():
        assert row["data_range"] == peak
        assert row["high"] == pytest.approx(1.2)
        assert 0.005 < row["noise_std"][0] < 0.1


def test_full_scale_may_be_said(tmp_path: Path, pair: Callable) -> None:
    float_pairs(tmp_path / "d", pair, 1.0)
    ingest(str(tmp_path / "d"), "tiff", str(tmp_path / "c"), IngestSettings(data_range=2.0))
    assert {row["data_range"] for row in rows(str(tmp_path / "c")).values()} == {2.0}


def test_a_failed_run_leaves_the_catalogue_that_was_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    ingest(str(root), str(rules), str(tmp_path / "c"))
    before = (tmp_path / "c" / "catalogue.json").read_bytes()
    (root / "clean" / "wall_100_1.png").write_bytes(b"")
    with pytest.raises(RejectedError) as error:
        ingest(str(root), str(rules), str(tmp_path / "c"), IngestSettings(max_rejected=0.1))
    assert [r["id"] for r in error.value.rejected] == ["wall_100_1"]
    assert (tmp_path / "c" / "catalogue.json").read_bytes() == before
    assert json.loads((tmp_path / "c" / "failed.json").read_text())["rejected"] == error.value.rejected
