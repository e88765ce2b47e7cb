"""Dataset adapters on the layouts that owners ship."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pngmodel.errors import UserError
from tasks.datasets import adapter
from tasks.datasets.records import Found

FIRST = "0001_001_S6_00100_00060_3200_L"


def reasons(found: Found) -> dict[str, str]:
    return {r.id: r.reason for r in found.rejected}


def test_sidd_small(sidd_small: Path) -> None:
    found = adapter("sidd-small").find(str(sidd_small))
    assert [r.pair for r in found.records] == [
        f"{FIRST}_010",
        "0002_001_GP_00800_00350_3200_N_010",
        "0003_002_IP_00400_00350_5500_H_010",
    ]
    first = found.records[0]
    assert (first.scene, first.camera, first.iso, first.split, first.dataset) == (
        "001",
        "S6",
        100,
        "train",
        "sidd_small",
    )
    assert Path(first.noisy).name == "NOISY_SRGB_010.PNG"
    assert Path(first.clean).is_file()
    assert Path(first.clean).parent == Path(first.noisy).parent
    assert "MIT" in first.licence
    assert found.rejected == []


def test_sidd_medium_pairs_each_frame_with_its_own_ground_truth(sidd_medium: Path) -> None:
    found = adapter("sidd-medium").find(str(sidd_medium))
    assert len(found.records) == 4
    for record in found.records:
        assert Path(record.noisy).name.replace("NOISY", "GT") == Path(record.clean).name
        assert record.pair.endswith(Path(record.noisy).stem[-3:])
    assert {r.camera for r in found.records} == {"S6", "G4"}


def test_sidd_without_ground_truth_is_rejected_with_a_reason(sidd_small: Path) -> None:
    (sidd_small / "Data" / FIRST / "GT_SRGB_010.PNG").unlink()
    found = adapter("sidd-small").find(str(sidd_small))
    assert len(found.records) == 2
    assert "GT image is missing" in reasons(found)[f"{FIRST}_010"]


def test_sidd_ignores_stray_files_and_reports_odd_folders(sidd_small: Path) -> None:
    (sidd_small / "Data" / FIRST / "Thumbs.db").write_bytes(b"x")
    shutil.copytree(sidd_small / "Data" / FIRST, sidd_small / "Data" / "my_copy")
    found = adapter("sidd-small").find(str(sidd_small))
    assert len(found.records) == 3
    assert {Path(r.id).parent.name for r in found.rejected} == {"my_copy"}


def test_a_second_copy_of_an_instance_does_not_vanish(sidd_small: Path) -> None:
    shutil.copytree(sidd_small / "Data" / FIRST, sidd_small / "Backup" / FIRST)
    found = adapter("sidd-small").find(str(sidd_small))
    assert len(found.records) == 3
    assert len({Path(found.records[0].noisy).parent, Path(found.records[0].clean).parent}) == 1
    assert [("second" in r.reason, FIRST in r.id) for r in found.rejected] == [(True, True)] * 2


@pytest.mark.parametrize(("name", "layout"), [("sidd-medium", "sidd_small"), ("sidd-small", "sidd_medium")])
def test_the_wrong_folder_is_refused_with_what_was_expected(
    name: str, layout: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(layout)
    with pytest.raises(UserError, match=rf"{root.name}.*no .* images found; expected Data/"):
        adapter(name).find(str(root))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        adapter("sidd-small").find(str(tmp_path / "nowhere"))


def test_unknown_adapters_are_listed() -> None:
    with pytest.raises(UserError, match=r"'sid'.*sidd-medium, sidd-small.*YAML"):
        adapter("sid")


def test_paired_folders(folders: tuple[Path, Path]) -> None:
    found = adapter(str(folders[1])).find(str(folders[0]))
    assert found.rejected == []
    facts = {r.pair: (r.scene, r.camera, r.iso, r.split) for r in found.records}
    assert facts == {
        "street_100_1": ("street", "GP", 100, "train"),
        "street_800_2": ("street", "GP", 800, "validation"),
        "wall_100_1": ("wall", None, 100, "train"),
        "wall_100_2": ("wall", None, 100, "validation"),
    }
    assert {r.licence for r in found.records} == {"CC0"}


def test_paired_folders_list_what_has_no_partner_or_comes_twice(folders: tuple[Path, Path]) -> None:
    root, rules = folders
    (root / "clean" / "wall_100_1.png").unlink()
    shutil.copy(root / "noisy" / "street_100_1.png", root / "noisy" / "street_100_1.tif")
    found = adapter(str(rules)).find(str(root))
    assert [r.pair for r in found.records] == ["street_100_1", "street_800_2", "wall_100_2"]
    assert "clean image is missing beside noisy/wall_100_1.png" in reasons(found)["wall_100_1"]
    assert "noisy/street_100_1.png is used" in reasons(found)["noisy/street_100_1.tif"]


def test_a_file_cannot_be_both_halves(folders: tuple[Path, Path]) -> None:
    root, rules = folders
    rules.write_text("dataset: x\nlicence: CC0\nnoisy: '(?P<pair>.+)\\.png'\nclean: 'clean/(?P<pair>.+)\\.png'\n")
    with pytest.raises(UserError, match=r"clean/street_100_1\.png.*both.*rules\.yaml"):
        adapter(str(rules)).find(str(root))


def test_no_match_names_the_rules(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"elsewhere.*rules\.yaml"):
        adapter(str(folders[1])).find(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("noisy: '(?P<pair>.+'", "noisy"),
        ("noisy: '(.+)_noisy\\.png'", "noisy"),
        ("cases: [{match: '[a-'}]", "cases.0.match"),
        ("cases: [{match: 'a', isso: 3}]", "cases.0.isso"),
        ("dataset: 'My Data'", "dataset"),
    ],
)
def test_bad_rules_name_the_key(tmp_path: Path, line: str, key: str) -> None:
    good = {"dataset": "x", "licence": "CC0", "noisy": "'(?P<pair>.+)_n'", "clean": "'(?P<pair>.+)_c'"}
    good.pop(line.partition(":")[0], None)
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join([*(f"{k}: {v}" for k, v in good.items()), line]))
    with pytest.raises(UserError, match=rf"bad\.yaml.*'{key}'"):
        adapter(str(path))


def test_the_shipped_rules_are_valid() -> None:
    root = Path(__file__).parents[3] / "configs" / "datasets"
    names = sorted(root.glob("*.yaml"))
    assert names
    for path in names:
        adapter(str(path))
