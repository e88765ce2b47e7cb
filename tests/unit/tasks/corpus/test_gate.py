"""The quality gate: each rule rejects, evidence is kept, too much of it stops the publication."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pngmodel.errors import UserError
from tasks.corpus.gate import GateRules, load_rules, reasons, run_gate


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
        ({"noise_std": 0.017}, "std ratio: 0.567"),
        ({"noise_std": 0.046}, "std ratio: 1.533"),
        ({"saturated": 0.96}, "saturated"),
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


def evidence(samples: int, rejected: int) -> dict[str, Any]:
    examples = [{"sample": k, "reason": "dead: noise std 0"} for k in range(rejected)]
    return {"samples": samples, "reasons": {"dead": rejected} if rejected else {}, "rejected": examples}


GOOD = {"kld": 0.02, "lag1_error": 0.01, "cross_channel_error": 0.02, "std_ratio": 1.05, "pairs": 8}


def test_a_share_within_the_limit_is_published_with_its_list(tmp_path: Path) -> None:
    rules = GateRules(max_rejected_share=0.02)
    assert run_gate(str(tmp_path), evidence(50, 1), {"S6": GOOD}, rules).failures == []
    found = json.loads((tmp_path / "gate.json").read_text())
    assert found["passed"] is True
    assert found["rejected"] == [{"sample": 0, "reason": "dead: noise std 0"}]
    assert found["cameras"]["S6"] == GOOD


def test_a_share_above_the_limit_stops_and_keeps_the_evidence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 of 3 samples rejected.*sample 0: dead.*Nothing was published.*gate\.json"):
        run_gate(str(tmp_path), evidence(3, 2), {}, GateRules())
    found = json.loads((tmp_path / "gate.json").read_text())
    assert found["passed"] is False
    assert [r["sample"] for r in found["rejected"]] == [0, 1]
    assert found["rules"]["std_ratio"] == [0.6, 1.5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kld": 0.3}, r"camera GP: kld 0\.300, allowed 0\.15"),
        ({"lag1_error": 0.2}, r"camera GP: lag1_error 0\.200"),
        ({"cross_channel_error": 0.3}, r"camera GP: cross_channel_error"),
        ({"std_ratio": 0.7}, r"camera GP: std ratio 0\.700, allowed 0\.8 to 1\.25"),
        ({"std_ratio": 1.3}, r"camera GP: std ratio 1\.300"),
    ],
)
def test_one_camera_fails_the_corpus(tmp_path: Path, change: dict[str, float], words: str) -> None:
    cameras = {"GP": GOOD | change, "S6": GOOD}
    with pytest.raises(UserError, match=words):
        run_gate(str(tmp_path), evidence(50, 0), cameras, GateRules())
    assert run_gate(str(tmp_path), evidence(50, 0), cameras, load_rules("default", baseline=True)).failures == []


def test_an_override_is_explicit_and_recorded(tmp_path: Path) -> None:
    bad = {"GP": GOOD | {"lag1_error": 0.3}}
    failures = run_gate(str(tmp_path), evidence(50, 0), bad, GateRules(), "a camera we know to be odd").failures
    assert failures == ["camera GP: lag1_error 0.300, allowed 0.1"]
    found = json.loads((tmp_path / "gate.json").read_text())
    assert (found["passed"], found["override"]) == (False, "a camera we know to be odd")
    run_gate(str(tmp_path), evidence(50, 0), {"GP": GOOD}, GateRules(), "not needed")
    assert json.loads((tmp_path / "gate.json").read_text())["override"] is None


def test_rules_come_from_a_file_or_the_default(tmp_path: Path) -> None:
    assert load_rules("default") == GateRules()
    root = Path(__file__).parents[4] / "configs" / "quality_gates"
    assert load_rules(str(root / "default.yaml")) == GateRules()
    (tmp_path / "gate.yaml").write_text("max_saturatde: 0.5\n")
    with pytest.raises(UserError, match=r"gate\.yaml.*'max_saturatde'"):
        load_rules(str(tmp_path / "gate.yaml"))


def test_figures_that_are_no_numbers_fail_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="camera GP: kld"):
        run_gate(str(tmp_path), evidence(50, 0), {"GP": GOOD | {"kld": float("nan")}}, GateRules())
