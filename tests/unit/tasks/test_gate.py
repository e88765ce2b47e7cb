"""The quality gate: each rule rejects, evidence is kept, too much of it stops the publication."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pngmodel.errors import UserError
from tasks.gate import GateRules, load_rules, reasons, run_gate


def manifest(*changes: dict[str, Any]) -> pa.Table:
    good = {"noise_std": 0.03, "expected_std": 0.03, "saturated": 0.01}
    return pa.Table.from_pylist([good | {"noise_sha256": str(k)} | change for k, change in enumerate(changes)])


def test_good_samples_pass() -> None:
    assert reasons(manifest({}, {}, {}), GateRules()) == {}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"noise_std": 0.0001, "expected_std": 0.0001}, "dead"),
        ({"noise_std": 0.0}, "dead"),
        ({"noise_std": 0.017}, "std ratio 0.567"),
        ({"noise_std": 0.046}, "std ratio 1.533"),
        ({"saturated": 0.96}, "saturated"),
        ({"noise_sha256": "0"}, "duplicate: the noise of sample 0"),
    ],
)
def test_each_rule_rejects(change: dict[str, Any], word: str) -> None:
    found = reasons(manifest({}, {}, change), GateRules())
    assert list(found) == [2]
    assert found[2].startswith(word)


def test_the_ratio_of_a_mostly_saturated_patch_is_no_evidence() -> None:
    rules = GateRules()
    assert reasons(manifest({"noise_std": 0.01, "saturated": 0.6}), rules) == {}
    assert list(reasons(manifest({"noise_std": 0.01, "saturated": 0.4}), rules)) == [0]


def test_a_reference_without_noise_gives_no_ratio() -> None:
    assert reasons(manifest({"expected_std": 0.0}), GateRules()) == {}


def test_duplicates_can_be_allowed() -> None:
    twice = manifest({}, {"noise_sha256": "0"})
    assert list(reasons(twice, GateRules())) == [1]
    assert reasons(twice, GateRules(duplicates=True)) == {}


def test_a_share_within_the_limit_is_published_with_its_list(tmp_path: Path) -> None:
    table = manifest(*[{}] * 49, {"noise_std": 0.0})
    assert list(run_gate(str(tmp_path), table, GateRules(max_rejected_share=0.02))) == [49]
    evidence = json.loads((tmp_path / "gate.json").read_text())
    assert evidence["passed"] is True
    assert evidence["rejected"] == [{"sample": 49, "reason": "dead: noise std 0"}]
    assert evidence["reasons"] == {"dead": 1}


def test_a_share_above_the_limit_stops_and_keeps_the_evidence(tmp_path: Path) -> None:
    table = manifest({}, {"noise_std": 0.0}, {"noise_std": 0.09})
    with pytest.raises(UserError, match=r"rejected 2 of 3 samples.*sample 1: dead.*Nothing was published.*gate\.json"):
        run_gate(str(tmp_path), table, GateRules())
    evidence = json.loads((tmp_path / "gate.json").read_text())
    assert evidence["passed"] is False
    assert [r["sample"] for r in evidence["rejected"]] == [1, 2]
    assert evidence["rules"]["std_ratio"] == [0.6, 1.5]


def test_rules_come_from_a_file_or_the_default(tmp_path: Path) -> None:
    assert load_rules("default") == GateRules()
    root = Path(__file__).parents[3] / "configs" / "corpora"
    assert load_rules(str(root / "default.yaml")) == GateRules()
    (tmp_path / "gate.yaml").write_text("max_saturatde: 0.5\n")
    with pytest.raises(UserError, match=r"gate\.yaml.*'max_saturatde'"):
        load_rules(str(tmp_path / "gate.yaml"))
