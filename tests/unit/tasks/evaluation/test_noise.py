"""Evaluation: what the record says, and that it says the same again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pngmodel.errors import UserError
from pngmodel.metrics.protocols import METRICS
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise


def test_the_record(patches: str, tmp_path: Path) -> None:
    output = tmp_path / "record.json"
    evaluation = evaluate_noise(
        EvaluateParameters(model="awgn", references=patches, limit=4, output=str(output), baselines=True)
    )
    record = evaluation.record
    assert json.loads(output.read_text()) == record
    assert record["protocol"] == "noise-A"
    assert record["pairs"] == 4
    # The model that is measured is itself a baseline, so it stands in the table once.
    assert set(record["metrics"]) == {
        "model",
        "heteroscedastic",
        "spectrum_matched",
        "spectrum_matched_quantiles",
        "polyphase_matched",
        "floor",
    }
    assert set(record["metrics"]["model"]) == {*METRICS, "sample_correlation"}
    assert set(record["metrics"]["floor"]) == set(METRICS)
    assert abs(record["metrics"]["model"]["sample_correlation"]) < 0.05
    assert (record["reference_kinds"], record["skipped"]) == ({"the pair itself": 4}, [])
    assert {"kld_naflow", "kld_naflow_rounded", "lag1_error", "akld"} <= set(record["metrics"]["model"])
    metrics = record["metrics"]
    assert metrics["model"]["lag1_error"] > 5 * metrics["spectrum_matched"]["lag1_error"]  # the noise is blurred
    assert "awgn" not in json.dumps(record)  # digests, not names or places as somebody typed them
    assert len(evaluation.examples) == 4


def test_cameras(patches: str) -> None:
    record = evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False)).record
    assert record["cameras_pairs"] == {"GP": 18, "unknown camera": 18}
    # Mean over a camera's pairs, then the plain mean of the cameras (metrics.md).
    each = [rows["model"]["lag1_error"] for rows in record["cameras"].values()]
    assert record["metrics"]["model"]["lag1_error"] == pytest.approx(sum(each) / 2)
    only = evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False, camera="GP")).record
    assert only["pairs"] == 18
    assert only["cameras"] == {"GP": record["cameras"]["GP"]}
    with pytest.raises(UserError, match=r"camera 'S6'.*'GP', 'None'"):
        evaluate_noise(EvaluateParameters(model="awgn", references=patches, camera="S6"))


def test_the_limit_takes_pairs_evenly_spread(patches: str) -> None:
    evaluation = evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False, limit=4))
    assert [e.id.split("/")[0] for e in evaluation.examples] == [
        "street_100_1",
        "street_800_2",
        "wall_100_1",
        "wall_100_2",
    ]
    assert (
        evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False, limit=1000)).record[
            "pairs"
        ]
        == 36
    )


def test_it_repeats_and_follows_the_seed(patches: str) -> None:
    def run(seed: int) -> dict:
        return evaluate_noise(
            EvaluateParameters(model="heteroscedastic", references=patches, baselines=False, limit=3, seed=seed)
        ).record

    assert run(1) == run(1)
    assert run(2)["metrics"]["model"] != run(1)["metrics"]["model"]
    assert run(2)["metrics"]["floor"] == run(1)["metrics"]["floor"]


def test_the_references_digest_is_of_the_pairs_measured(patches: str) -> None:
    def digest(limit: int) -> str:
        parameters = EvaluateParameters(model="awgn", references=patches, baselines=False, limit=limit)
        return str(evaluate_noise(parameters).record["references"])

    assert digest(2) == digest(2) != digest(3)


def test_a_device_that_is_not_there_is_refused_at_once(patches: str) -> None:
    with pytest.raises(UserError, match=r"device 'cuda:99'.*available devices: cpu"):
        evaluate_noise(EvaluateParameters(model="awgn", references=patches, device="cuda:99"))


def test_examples_stay_few_and_small(patches: str) -> None:
    evaluation = evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False))
    assert evaluation.record["pairs"] == 36
    assert len(evaluation.examples) == 8
