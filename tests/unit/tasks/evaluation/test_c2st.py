"""The classifier two-sample test on real stores: what is held out, equal budgets, the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pngmodel.errors import UserError
from tasks.datasets.ingest import ingest
from tasks.datasets.reference_pairs import open_references
from tasks.evaluation.c2st import C2stParameters, evaluate_c2st, hold_out
from tasks.evaluation.pair_selection import select_pairings
from tasks.reports.tables import c2st_table
from tasks.stores.io.filesystem import read_json


def parameters(url: str, **changes: Any) -> C2stParameters:
    fields = {"model": "awgn", "references": url, "steps": 3, "batch": 4, "seeds": 2, "hold_out": "image"}
    return C2stParameters(**(fields | changes))


def test_the_record(catalogue: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    output = str(tmp_path / "record.json")
    record = evaluate_c2st(parameters(catalogue, output=output), lambda done, total: steps.append((done, total)))
    assert read_json(output) == record == json.loads(json.dumps(record))
    assert record["protocol"] == "c2st-A"
    assert record["pairs"] == 4
    assert record["budget"] == {"steps": 3, "batch": 4, "average": 1, "seeds": 2, "seed": 0}
    assert record["skipped"] == []
    assert record["metrics"]["floor"] == {"auc": 0.5, "auc_by_seed": [0.5]}
    rows = {name: row for name, row in record["metrics"].items() if name != "floor"}
    assert set(rows) == {
        "model",
        "heteroscedastic",
        "spectrum_matched",
        "spectrum_matched_quantiles",
        "polyphase_matched",
    }
    for row in rows.values():
        assert len(row["auc_by_seed"]) == 2
        assert row["auc"] == pytest.approx(sum(row["auc_by_seed"]) / 2)
        assert row["auc_spread"] == pytest.approx(abs(row["auc_by_seed"][0] - row["auc_by_seed"][1]) / 2**0.5)
    assert steps == [(k, 10) for k in range(11)]
    assert set(record["held_out"]) == {"0", "1"}
    assert all(facts["pairs"] == 1 for facts in record["held_out"].values())
    table = c2st_table(record)
    assert "| this model |" in table
    assert table.rstrip().endswith("| floor (perfect generator) | 0.500 | – |")


@pytest.fixture
def wide(folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable) -> str:
    """A catalogue of four images of which each half holds a patch."""
    root, rules = folders
    for seed, path in enumerate(sorted((root / "clean").iterdir())):
        for side, image in zip(("noisy", "clean"), pair(seed, 64, 128), strict=True):
            save(root / side / path.name, image)
    url = str(tmp_path / "wide")
    ingest(str(root), str(rules), url)
    return url


def test_it_repeats_and_workers_find_the_same(wide: str) -> None:
    fields = {"baselines": False, "reference": "B"}
    first = evaluate_c2st(parameters(wide, **fields))
    assert first["protocol"] == "c2st-B"
    assert first["reference_kinds"] == {"the other half of the image": 4}
    assert evaluate_c2st(parameters(wide, **fields)) == first
    assert evaluate_c2st(parameters(wide, **fields, cluster={"kind": "local", "workers": 2})) == first


def test_a_classifier_finds_white_noise_in_place_of_blurred_noise(catalogue: str) -> None:
    record = evaluate_c2st(parameters(catalogue, steps=40, batch=16, seeds=1, baselines=False))
    assert record["metrics"]["model"]["auc"] > 0.9


@pytest.mark.parametrize("kind", ["scene", "image", "split"])
def test_whole_groups_are_held_out(kind: Any, patches: str) -> None:
    source = open_references(patches)
    pairings = select_pairings(source, patches, split=None, camera=None, protocol="A", seed=0).found
    field = {"scene": "scene", "image": "image", "split": "split"}[kind]
    picks = set()
    for seed in range(8):
        train, rest = hold_out(source, pairings, kind, seed)
        names = [{getattr(source.references[p.target], field) for p in side} for side in (train, rest)]
        assert not names[0] & names[1]
        assert len(train) + len(rest) == 36
        picks.add(tuple(sorted(names[1])))
    assert picks == {("validation",)} if kind == "split" else len(picks) > 1


def test_one_scene_cannot_be_split(catalogue: str) -> None:
    with pytest.raises(
        UserError,
        match=r"--hold-out scene leaves 0 training pairs and 2 test pairs \('street'\); add pairs, or set --hold-out",
    ):
        evaluate_c2st(parameters(catalogue, hold_out="scene", camera="GP"))


def test_small_images_are_listed(folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable) -> None:
    root, rules = folders
    for side, image in zip(("noisy", "clean"), pair(9, 60, 96), strict=True):
        save(root / side / "street_100_3.png", image)
    url = str(tmp_path / "catalogue")
    ingest(str(root), str(rules), url)
    record = evaluate_c2st(parameters(url, baselines=False, seeds=1))
    assert record["pairs"] == 4
    assert "auc_spread" not in record["metrics"]["model"]
    assert record["skipped"] == [
        {"id": "street_100_3", "reason": "the evaluated region has a side of 60 pixels, less than 64"}
    ]


def test_a_store_of_small_patches_is_refused(patches: str) -> None:
    with pytest.raises(UserError, match=r"no pair is large enough \(.* a side of 32"):
        evaluate_c2st(parameters(patches))


@pytest.mark.parametrize("change", [{"batch": 5}, {"average": 3}, {"hold_out": "camera"}, {"steps": 0}, {"stesp": 1}])
def test_parameters_are_validated(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        parameters("shipped", **change)
