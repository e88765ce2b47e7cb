"""Paired folders: by rules, by a rule file inside, by the usual names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pngmodel.errors import UserError
from tasks.datasets.adapters import adapter
from tasks.datasets.records import Found
from tasks.datasets.source import Source


def find(name: str | Path, root: Path) -> Found:
    return adapter(str(name)).find(Source.of(str(root)))


def reasons(found: Found) -> dict[str, str]:
    return {r.id: r.reason for r in found.rejected}


@pytest.mark.parametrize("form", ["rule file", "dataset.yaml inside", "archive and rule file"])
def test_rules_tell_pairs_and_facts(
    folders: tuple[Path, Path], tmp_path: Path, ingested: Callable, packed: Callable, form: str
) -> None:
    root, rules = folders
    if form == "dataset.yaml inside":
        shutil.copy(rules, root / "dataset.yaml")
    source = packed(root, tmp_path / "x.zip", "pairs/") if form.startswith("archive") else root
    found = ingested(source, "folders" if form == "dataset.yaml inside" else str(rules))
    assert found.reasons == {}
    assert {p: (r["scene"], r["camera"], r["iso"], r["split"]) for p, r in found.rows.items()} == {
        "street_100_1": ("street", "GP", 100, "train"),
        "street_800_2": ("street", "GP", 800, "validation"),
        "wall_100_1": ("wall", None, 100, "train"),
        "wall_100_2": ("wall", None, 100, "validation"),
    }
    assert {(r["licence"], r["dataset"]) for r in found.rows.values()} == {("CC0", "tiny_pairs")}


def test_rules_inside_an_archive_are_not_followed(folders: tuple[Path, Path], tmp_path: Path, packed: Callable) -> None:
    root, rules = folders
    shutil.copy(rules, root / "dataset.yaml")
    with pytest.raises(UserError, match=r"dataset\.yaml.*--adapter"):
        find("folders", packed(root, tmp_path / "x.zip", "pairs/"))


def test_what_has_no_partner_or_comes_twice_is_told(folders: tuple[Path, Path]) -> None:
    root, rules = folders
    (root / "clean" / "wall_100_1.png").unlink()
    shutil.copy(root / "noisy" / "street_100_1.png", root / "noisy" / "street_100_1.tif")
    found = find(rules, root)
    assert [r.pair for r in found.records] == ["street_100_1", "street_800_2", "wall_100_2"]
    assert "the clean image of noisy/wall_100_1.png is missing" in reasons(found)["wall_100_1"]
    assert "noisy/street_100_1.png is used" in reasons(found)["noisy/street_100_1.tif"]


def test_a_file_cannot_be_both_halves(folders: tuple[Path, Path]) -> None:
    root, rules = folders
    rules.write_text("dataset: x\nlicence: CC0\nnoisy: '(?P<pair>.+)\\.png'\nclean: 'clean/(?P<pair>.+)\\.png'\n")
    with pytest.raises(UserError, match=r"clean/street_100_1\.png.*both.*rules\.yaml"):
        find(rules, root)


def test_no_match_names_the_rules(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_text("")
    with pytest.raises(UserError, match=r"elsewhere.*rules\.yaml"):
        find(folders[1], tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("noisy: '(?P<pair>.+'", "noisy"),
        ("noisy: '(.+)_noisy\\.png'", "noisy"),
        ("cases: [{match: '[a-'}]", "cases.0.match"),
        ("cases: [{match: 'a', isso: 3}]", "cases.0.isso"),
        ("cases: [{match: 'a', iso: 99999999999}]", "cases.0.iso"),
        ("dtype: int16", "dtype"),
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
    names = sorted((Path(__file__).parents[5] / "configs" / "datasets").glob("*.yaml"))
    assert names
    for path in names:
        adapter(str(path))


def test_an_iso_that_is_none_is_not_made_up(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "dataset: x\nlicence: CC0\nnoisy: 'noisy/(?P<pair>(?P<iso>[^_]+)_.)\\.png'\nclean: 'clean/(?P<pair>.+)\\.png'\n"
    )
    names = ("100_a", "²_b", "99999999999_c", "0_d")
    for seed, name in enumerate(names):
        for side, image in zip(("noisy", "clean"), pair(seed, 48, 48), strict=True):
            save(tmp_path / "p" / side / f"{name}.png", image)
    found = ingested(tmp_path / "p", str(rules))
    assert {name: r["iso"] for name, r in found.rows.items()} == dict(zip(names, (100, None, None, None), strict=True))


LAYOUTS = {
    "folders": ("noisy/{}.png", "clean/{}.png"),
    "folders deep in a tree": ("data/Input/day/{}.png", "data/GroundTruth/day/{}.png"),
    "ends of names": ("all/{}_noisy.png", "all/{}_clean.png"),
    "starts of names": ("NOISY_{}.PNG", "GT_{}.PNG"),
    "dashes": ("{}-real.png", "{}-mean.png"),
    "a folder a scene": ("{}/noisy.png", "{}/gt.png"),
    "folders and names": ("noisy/{}_noisy.png", "clean/{}_clean.png"),
    "other formats": ("input/{}.png", "target/{}.tif"),
    "low and high quality": ("LQ/{}.png", "GT/{}.png"),
    "ends of low and high quality": ("{}_lq.png", "{}_hq.png"),
    "noise": ("noise/{}.png", "clean/{}.png"),
    "degraded": ("degraded/{}.bmp", "reference/{}.bmp"),
    "words in folders": ("train/noisy_images/{}.png", "train/clean_images/{}.png"),
    "crops": ("input-crops/{}.png", "target crops/{}.png"),
    "two words": ("noisy/{}.png", "Ground Truth/{}.png"),
    "two words at the end": ("{}-input.png", "{}-ground-truth.png"),
    "sets": ("x_noisy/{}.png", "x_gt/{}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_usual_names_need_no_rules(
    tmp_path: Path, pair: Callable, save: Callable, ingested: Callable, layout: str
) -> None:
    # words of the convention inside ordinary names must not mislead
    for seed, name in enumerate(("a_1", "low_light", "high-rise", "street_raw")):
        for location, image in zip(LAYOUTS[layout], pair(seed, 48, 48), strict=True):
            save(tmp_path / "set" / location.format(name), image)
    save(tmp_path / "set" / "notes.png", pair(9, 8, 8)[0])
    (tmp_path / "set" / "notes.txt").write_text("")
    found = ingested(tmp_path / "set", "folders", licence="mine")
    assert len(found.rows) == 4
    assert list(found.reasons) == ["notes.png"]
    assert "the name indicates neither noisy nor clean; expected folders noisy/" in found.reasons["notes.png"]
    assert found.ignored == 1
    assert {(r["licence"], r["dataset"]) for r in found.rows.values()} == {("mine", "set")}
    expected = {str(k): pair(k, 48, 48) for k in range(4)}
    for k, side in enumerate(("noisy", "clean")):
        images = [image for _, image in found.pixels(side)]
        assert all(any(np.array_equal(image, p[k]) for p in expected.values()) for image in images)
    for row in found.rows.values():
        halves = [Path(row[side]).relative_to(tmp_path / "set") for side in ("noisy", "clean")]
        name = next(n for n in ("a_1", "low_light", "high-rise", "street_raw") if n in str(halves[0]))
        assert name in str(halves[1])


def test_mixed_layouts_and_missing_partners(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    locations = ["noisy/a.png", "clean/a.png", "more/b_noisy.png", "more/b_clean.png", "noisy/c.png", "more/d_gt.png"]
    for seed, location in enumerate(locations):
        save(tmp_path / "set" / location, pair(seed // 2, 48, 48)[seed % 2])
    found = ingested(tmp_path / "set", "folders")
    assert sorted(found.rows) == ["a", "more/b"]
    assert "the clean image of noisy/c.png is missing" in found.reasons["c"]
    assert "the noisy image of more/d_gt.png is missing" in found.reasons["more/d"]


def test_images_of_no_side_are_refused_with_the_convention(tmp_path: Path, pair: Callable, save: Callable) -> None:
    save(tmp_path / "a.png", pair(0, 8, 8)[0])
    with pytest.raises(UserError, match=r"no pairs found by file names; expected folders noisy/ and clean/"):
        find("folders", tmp_path)


def test_residuals_beside_noisy_images_are_no_noisy_images(tmp_path: Path, pair: Callable, save: Callable) -> None:
    for location in ("a_noise.png", "a_noisy.png", "a_clean.png", "noise/b.png", "noisy/b.png", "gt/b.png"):
        save(tmp_path / "set" / location, pair(0, 48, 48)[0])
    found = find("folders", tmp_path / "set")
    assert {Path(str(r.noisy)).relative_to(tmp_path / "set").as_posix() for r in found.records} == {
        "a_noisy.png",
        "noisy/b.png",
    }
    assert "a_noisy.png is used" in reasons(found)["a_noise.png"]
    assert "noisy/b.png is used" in reasons(found)["noise/b.png"]


REPEATS = """
dataset: renoir
licence: CC0
noisy: '(?P<pair>(?P<camera>\w+)_Aligned/Batch_\d+)/(?P<repeat>IMG_\d+)Noisy(?:_iso(?P<iso>\d+))?\.bmp'
clean: '(?P<pair>.+)/IMG_\d+Reference\.bmp'
cases: [{match: '.+Batch_002', split: validation}]
"""


def test_repeats_share_a_clean_image(tmp_path: Path, pair: Callable, save: Callable, ingested: Callable) -> None:
    clean = pair(0, 48, 48)[1]
    for batch in ("001", "002"):
        root = tmp_path / "set" / "Mi3_Aligned" / f"Batch_{batch}"
        save(root / "IMG_9Reference.bmp", clean)
        for seed, name in enumerate(("IMG_1Noisy_iso400", "IMG_2Noisy_iso800", "IMG_2Noisy")):
            noise = np.random.default_rng([int(batch), seed]).normal(0, 6, clean.shape)
            save(root / f"{name}.bmp", (clean + noise).round().clip(0, 255).astype(np.uint8))
        save(root / "IMG_8Full.bmp", clean)
    (tmp_path / "renoir.yaml").write_text(REPEATS)
    found = ingested(tmp_path / "set", str(tmp_path / "renoir.yaml"))
    one, two = "Mi3_Aligned/Batch_001", "Mi3_Aligned/Batch_002"
    assert {p: (r["scene"], r["camera"], r["iso"], r["split"]) for p, r in found.rows.items()} == {
        f"{one}:IMG_1": (one, "Mi3", 400, "train"),
        f"{one}:IMG_2": (one, "Mi3", None, "train"),
        f"{two}:IMG_1": (two, "Mi3", 400, "validation"),
        f"{two}:IMG_2": (two, "Mi3", None, "validation"),
    }
    assert sorted(found.reasons) == [f"{batch}/IMG_2Noisy_iso800.bmp" for batch in (one, two)]
    assert found.ignored == 2
    assert {r["clean"].rpartition("/")[2] for r in found.rows.values()} == {"IMG_9Reference.bmp"}


def test_repeats_without_their_clean_image_and_repeats_of_clean_images(
    tmp_path: Path, pair: Callable, save: Callable
) -> None:
    save(tmp_path / "set" / "Mi3_Aligned" / "Batch_003" / "IMG_1Noisy.bmp", pair(0, 48, 48)[0])
    rules = tmp_path / "renoir.yaml"
    rules.write_text(REPEATS)
    found = find(rules, tmp_path / "set")
    assert (
        "the clean image of Mi3_Aligned/Batch_003/IMG_1Noisy.bmp is missing"
        in reasons(found)["Mi3_Aligned/Batch_003:IMG_1"]
    )
    rules.write_text(REPEATS.replace("IMG_\\d+Reference", "(?P<repeat>IMG_\\d+)Reference"))
    with pytest.raises(UserError, match=r"renoir\.yaml.*'clean'.*repeat.*use it only in 'noisy'"):
        find(rules, tmp_path / "set")
