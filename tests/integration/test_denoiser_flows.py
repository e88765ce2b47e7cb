"""Denoisers and the paper's tables under Prefect: what is stored, what the history shows, that reruns do nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.evaluate_denoiser import evaluate_denoiser
from flows.paper.parameters import ReproduceParameters
from flows.reproduce_paper import reproduce_paper
from flows.train_denoiser import TrainDenoiserParameters, train_denoiser
from tasks.denoising.evaluation import EvaluateDenoiserParameters
from tasks.denoising.measurement import TestSet
from tasks.denoising.training import Arm
from tasks.runtime.clusters import ClusterConfig

pytestmark = pytest.mark.usefixtures("prefect_server")
Tree = Callable[[Any], dict[str, bytes]]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A denoiser that is trained in a moment."""
    content = yaml.safe_load(Path("configs/denoisers/tiny.yaml").read_text())
    content["denoiser"]["settings"] = {"depth": 3, "width": 4}
    content["train"] |= {"crop": 16, "steps": 3}
    (tmp_path / "denoiser.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "denoiser.yaml")


def texts(word: str) -> list[str]:
    """Artifacts that hold a word."""

    async def ask() -> list[str]:
        async with get_client() as client:
            return [str(a.data) for a in await client.read_artifacts() if word in str(a.data)]

    return asyncio.run(ask())


def test_train_and_evaluate(patches: str, recipe: str, tmp_path: Path, tree: Tree) -> None:
    folder, location = tmp_path / "denoisers", tmp_path / "evaluation"
    training = TrainDenoiserParameters(
        config=recipe,
        output=str(folder),
        real=[patches],
        arms=[Arm(name="half", synthetic="awgn", share=0.5)],
        seeds=[0, 1],
        cluster=ClusterConfig(kind="local", workers=1),
    )
    result = train_denoiser(training)
    assert result["finished"]
    assert [(d["arm"], d["seed"]) for d in result["denoisers"]] == [
        (arm, seed) for seed in (0, 1) for arm in ("real", "half")
    ]
    assert any(str(folder / "half" / "seed-1" / "bundle") in text for text in texts("Denoisers trained"))
    tests = [TestSet(name="own", references=patches, split="validation", limit=3)]
    evaluation = EvaluateDenoiserParameters(denoisers=[str(folder), "nlm"], tests=tests, output=str(location))
    record = evaluate_denoiser(evaluation)
    assert set(record["tests"]["own"]["metrics"]) == {"noisy", "real", "half", "nlm"}
    assert record["tests"]["own"]["metrics"]["half"]["seeds"] == [0, 1]
    assert any("real pairs (control)" in text for text in texts("# Denoisers\n"))
    before = tree(folder) | tree(location)
    train_denoiser(training)
    assert evaluate_denoiser(evaluation) == record
    assert tree(folder) | tree(location) == before


def test_the_papers_tables(patches: str, recipe: str, tmp_path: Path, tree: Tree) -> None:
    budget = yaml.safe_load(Path("configs/paper/smoke.yaml").read_text())
    budget |= {"denoiser": recipe, "denoiser_steps": 2, "seeds": [0]}
    (tmp_path / "budget.yaml").write_text(yaml.safe_dump(budget))
    parameters = ReproduceParameters(
        model="heteroscedastic",
        real=patches,
        tests=[
            TestSet(name="own", references=patches, split="validation"),
            TestSet(name="street", references=patches, camera="GP", split="train"),
        ],
        budget=str(tmp_path / "budget.yaml"),
        output=str(tmp_path / "paper"),
        baselines={"awgn": "awgn"},
        tables=["noise-quality", "downstream", "cross-domain", "scaling", "unpaired"],
    )
    result = reproduce_paper(parameters)
    pages = {name: Path(location).read_text() for name, location in result["pages"].items()}
    assert set(pages) == set(parameters.tables)
    assert "| own | png |" in pages["downstream"]
    assert "| street | awgn |" in pages["downstream"]
    assert "| own | png-mixed |" in pages["cross-domain"]
    assert "| own | png-x2 |" in pages["scaling"]
    assert "| own | png-unpaired |" in pages["unpaired"]
    assert "own: " in pages["noise-quality"]
    assert all("Differences from the paper:" in page for page in pages.values())
    assert any("Denoisers trained only on synthetic pairs" in text for text in texts("Differences from"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "paper").rglob("*.safetensors")}
    content = tree(tmp_path / "paper")
    reproduce_paper(parameters)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tree(tmp_path / "paper") == content
