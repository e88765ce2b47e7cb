"""Reference protocols: whose noise a generator is shown for a pair."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pngmodel.errors import UserError
from tasks.datasets.reference_pairs import Reference, open_references
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise, write_report
from tasks.evaluation.pair_selection import pairings_key, read_pair, select_pairings
from tasks.evaluation.reference_protocols import Pairing, Pairings, Protocol, pair_references


def reference(image: str, camera: str | None = "S6", iso: int | None = 100, **changes: Any) -> Reference:
    facts: dict[str, Any] = {
        "id": f"{image}/{changes.get('y', 0)},{changes.get('x', 0)}",
        "camera": camera,
        "iso": iso,
        "licence": "CC0",
        "content": image,
        "split": "train",
        "dataset": "made_up",
        "scene": image,
        "image": image,
        "height": 32,
        "width": 32,
    }
    return Reference(**(facts | changes))


def by_id(references: list[Reference], pairings: Pairings) -> dict[str, tuple[str, str]]:
    return {references[p.target].id: (references[p.reference].id, p.kind) for p in pairings.found}


def everything(references: list[Reference], protocol: Protocol, seed: int = 0) -> Pairings:
    return pair_references(references, range(len(references)), protocol, seed)


PATCHES = [reference(image, y=y, x=x) for image in ("a", "b", "c") for y in (0, 32) for x in (0, 32)]
CAMERAS = [
    reference(f"{camera}{n}", camera, iso)
    for camera in ("S6", "GP", "N6")
    for iso in (100, 800)
    for n in (iso, iso + 1)
]


def test_a_is_the_pair_itself() -> None:
    assert everything(PATCHES, "A").found == tuple(Pairing(k, k, "the pair itself") for k in range(12))


def test_b_is_a_patch_of_the_same_image_that_shares_no_pixel() -> None:
    overlapping = [reference("a", y=y, x=0) for y in range(0, 65, 16)]
    for references in (PATCHES, overlapping):
        pairings = everything(references, "B")
        assert len(pairings.found) == len(references)
        for p in pairings.found:
            one, other = references[p.target], references[p.reference]
            assert one.image == other.image
            assert max(abs(one.y - other.y), abs(one.x - other.x)) >= 32
            assert p.kind == "another patch of the image"
    assert len({p.reference for p in everything(PATCHES, "B").found}) > 4


@pytest.mark.parametrize("size", [(40, 33), (33, 40)])
def test_b_halves_an_image_that_has_no_other_patch(size: tuple[int, int]) -> None:
    references = [reference("a", height=size[0], width=size[1]), reference("b", height=31, width=31)]
    pairings = everything(references, "B")
    (only,) = pairings.found
    assert (only.target, only.reference, only.kind) == (0, 0, "the other half of the image")
    image = torch.arange(size[0] * size[1]).reshape(1, *size)
    measured, shown = only.target_part(image), only.reference_part(image)
    assert not set(measured.flatten().tolist()) & set(shown.flatten().tolist())
    assert measured.numel() + shown.numel() == image.numel()
    assert min(*measured.shape[1:], *shown.shape[1:]) >= 16
    assert [left["id"] for left in pairings.skipped] == ["b/0,0"]
    assert "31 x 31 pixels cannot be split into halves" in pairings.skipped[0]["reason"]


def test_both_halves_are_measured_somewhere() -> None:
    references = [reference(f"image{n}") for n in range(20)]
    assert {p.half for p in everything(references, "B").found} == {0, 1}


def test_c_is_another_image_of_the_same_camera_and_iso() -> None:
    pairings = everything(CAMERAS, "C")
    assert len(pairings.found) == len(CAMERAS)
    for p in pairings.found:
        one, other = CAMERAS[p.target], CAMERAS[p.reference]
        assert (one.camera, one.iso) == (other.camera, other.iso)
        assert one.image != other.image


def test_c_prefers_another_scene_and_says_where_there_is_none() -> None:
    frames = [reference("a0", scene="a"), reference("a1", scene="a"), reference("a2", scene="a")]
    alone = by_id(frames, everything(frames, "C"))
    assert {kind for _, kind in alone.values()} == {"another image of the same scene"}
    assert all(target != reference for target, (reference, _) in alone.items())
    more = [*frames, reference("b", scene="b")]
    found = by_id(more, everything(more, "C"))
    assert found["a0/0,0"] == ("b/0,0", "an image of another scene")
    assert found["b/0,0"][0] in {"a0/0,0", "a1/0,0", "a2/0,0"}


def test_d_is_another_camera_and_all_cameras_have_equal_chances() -> None:
    many = [reference(f"GP{n}", "GP") for n in range(50)] + [reference("N6", "N6")]
    targets = [reference(f"S6{n}", "S6") for n in range(40)]
    references = targets + many
    pairings = pair_references(references, range(40), "D", 0)
    cameras = [references[p.reference].camera for p in pairings.found]
    assert set(cameras) == {"GP", "N6"}
    assert 10 < cameras.count("N6") < 30


def test_what_has_no_partner_is_listed_with_its_reason() -> None:
    references = [
        reference("a"),
        reference("b", "GP"),
        reference("c", None),
        reference("d", "S6", None),
        reference("e", split="validation"),  # a partner comes from the same split
    ]
    assert by_id(references, everything(references, "C")) == {}
    assert [left["reason"] for left in everything(references, "C").skipped] == [
        "there is no other image of camera S6 at ISO 100",
        "there is no other image of camera GP at ISO 100",
        "the camera is unknown",
        "the ISO is unknown",
        "there is no other image of camera S6 at ISO 100",
    ]
    found = everything(references, "D")
    assert set(by_id(references, found)) == {"a/0,0", "b/0,0", "d/0,0"}
    assert [left["reason"] for left in found.skipped] == [
        "the camera is unknown",
        "there is no camera other than S6",
    ]


@pytest.mark.parametrize("protocol", ["B", "C", "D"])
def test_a_partner_is_a_function_of_seed_and_ids(protocol: Protocol) -> None:
    references = [reference(f"{c}{n}", c, y=y) for c in ("S6", "GP") for n in range(6) for y in (0, 32, 64)]
    shuffled = random.Random(3).sample(references, len(references))
    expected = by_id(references, everything(references, protocol))
    assert by_id(shuffled, everything(shuffled, protocol)) == expected
    assert by_id(references, everything(references, protocol, seed=1)) != expected
    some = pair_references(references, [4, 9], protocol, 0)
    assert by_id(references, some).items() <= expected.items()


def test_partners_of_a_real_store_and_of_whole_images(patches: str, catalogue: str) -> None:
    for url, kind in ((patches, "another patch of the image"), (catalogue, "the other half of the image")):
        source = open_references(url)
        found = select_pairings(source, url, split=None, camera=None, protocol="B", seed=0).found
        assert {p.kind for p in found} == {kind}
        pair = read_pair(source, found[0])
        assert not torch.equal(pair.real.mean(), pair.reference_noisy.mean())
    assert pair.real.shape[1:] in ((48, 96), (96, 48))
    assert pairings_key(source, found) != pairings_key(source, found[:2])


def test_the_record_and_the_report_name_the_protocol(patches: str, tmp_path: Path) -> None:
    def run(protocol: Protocol) -> dict[str, Any]:
        parameters = EvaluateParameters(model="heteroscedastic", references=patches, reference=protocol, limit=18)
        evaluation = evaluate_noise(parameters)
        write_report(evaluation, str(tmp_path / f"{protocol}.html"))
        return evaluation.record

    record, own = run("B"), run("A")
    assert (record["protocol"], own["protocol"]) == ("noise-B", "noise-A")
    assert record["reference_kinds"] == {"another patch of the image": 18}
    assert record["references"] != own["references"]
    # The baselines see the other reference too; the floor knows of none.
    for row in ("model", "awgn", "spectrum_matched"):
        assert record["metrics"][row]["std_ratio"] != own["metrics"][row]["std_ratio"]
    assert record["metrics"]["floor"] == own["metrics"]["floor"]
    page = (tmp_path / "B.html").read_text()
    assert "All pairs, noise-B" in page
    assert "GP, noise-B" in page
    assert "another patch of the image (18)" in page


@pytest.mark.parametrize("protocol", ["C", "D"])
def test_no_pair_with_a_reference_is_an_error(protocol: Protocol, patches: str) -> None:
    # Two images of GP with different ISOs, two of an unknown camera.
    with pytest.raises(UserError, match=rf"no pair has a reference under protocol {protocol} \(first of 36: "):
        evaluate_noise(EvaluateParameters(model="awgn", references=patches, reference=protocol))


def test_pairs_without_a_partner_stand_in_the_record(
    folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    from tasks.datasets.ingest import ingest

    root, rules = folders
    for side, image in zip(("noisy", "clean"), pair(9), strict=True):
        save(root / side / "street_100_3.png", image)
    url = str(tmp_path / "catalogue")
    ingest(str(root), str(rules), url)
    parameters = EvaluateParameters(model="awgn", references=url, reference="C", limit=9)
    record = evaluate_noise(parameters).record
    assert record["pairs"] == 2
    assert record["reference_kinds"] == {"another image of the same scene": 2}
    assert {left["id"]: left["reason"] for left in record["skipped"]} == {
        "street_800_2": "there is no other image of camera GP at ISO 800",
        "wall_100_1": "the camera is unknown",
        "wall_100_2": "the camera is unknown",
    }
