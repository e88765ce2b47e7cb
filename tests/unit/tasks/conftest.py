"""A small corpus by a fast baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.evaluation import EvaluateParameters, evaluate_noise
from tasks.gate import load_rules, run_gate
from tasks.publication import Published, manifest_rows, publish
from tasks.synthesis import CorpusParameters, make_shards, plan_corpus


@pytest.fixture
def parameters(patches: str, folders: Any) -> Callable[..., CorpusParameters]:
    """Parameters of a corpus of 36 clean patches in shards of 8; keywords change fields."""

    def make(output: Any, **changes: Any) -> CorpusParameters:
        fields = {"model": "heteroscedastic", "references": patches, "clean": str(folders[0] / "clean")}
        return CorpusParameters(**(fields | {"output": str(output), "crop": 32, "shard": 8} | changes))

    return make


@pytest.fixture(scope="session")
def made() -> Callable[[CorpusParameters], tuple[Published, dict[str, int]]]:
    """What the flow does, without Prefect."""

    def run(parameters: CorpusParameters) -> tuple[Published, dict[str, int]]:
        plan = plan_corpus(parameters)
        shards = make_shards(plan)
        rows = manifest_rows(plan)
        rejected = run_gate(parameters.output, rows, load_rules(parameters.gate))
        evaluation = evaluate_noise(
            EvaluateParameters(model=parameters.model, references=parameters.references, limit=2, baselines=False)
        )
        return publish(plan, rows, rejected, evaluation), shards

    return run
