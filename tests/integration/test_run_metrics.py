"""What runs leave for their operators, and tasks that are tried again."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.catch_up import CatchUpParameters, catch_up
from flows.evaluate_noise import evaluate_noise
from flows.extract_patches import PatchParameters, extract_patches
from pngmodel.errors import TransientError, UserError
from tasks.evaluation.noise import EvaluateParameters
from tasks.runtime import steps
from tasks.runtime.artifacts import attempt, publish_markdown, publish_picture
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.run_metrics import collect_metrics
from tasks.runtime.steps import step

pytestmark = pytest.mark.usefixtures("prefect_server")


def cut(catalogue: str, output: Path) -> None:
    cluster = ClusterConfig(kind="local", workers=2)
    parameters = PatchParameters(catalogue=catalogue, output=str(output), size=32, shard=8, cluster=cluster)
    extract_patches(parameters)


def metrics_of(run: str) -> str:
    """The artifact of the newest run of a flow."""
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["run-metrics"])), sort=ArtifactSort.CREATED_DESC
        )
    found = [str(artifact.data) for artifact in artifacts]
    return next(text for text in found if f"| flow | {run} |" in text)


def test_a_run_shows_its_metrics_and_those_of_its_workers(catalogue: str, tmp_path: Path) -> None:
    cut(catalogue, tmp_path / "patches")
    found = metrics_of("extract_patches")
    assert "| state | completed |" in found
    assert f"| name | patches {tmp_path.name}/patches: {tmp_path.name}/catalogue |" in found
    assert "| stages | patches: 8 of 8 shards |" in found
    written = re.search(r"\| bytes_written \| ([\d.]+) \|", found)
    stored = sum(path.stat().st_size for path in (tmp_path / "patches").rglob("*") if path.is_file())
    assert written is not None
    assert float(written[1]) >= stored


def test_a_failed_run_shows_its_metrics_too(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        evaluate_noise(EvaluateParameters(model="awgn", references=str(tmp_path / "nothing")))
    found = metrics_of("evaluate_noise")
    assert "| state | failed |" in found
    assert "| error | UserError |" in found


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TASK_DELAYS", [0.0, 0.0])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("error", "tries", "counted"), [(TransientError, 3, 2), (UserError, 1, 0), (OSError, 1, 0)])
def test_what_may_pass_is_tried_again_and_counted(error: type[Exception], tries: int, counted: int) -> None:
    tried = threading.Semaphore(0)

    def task() -> None:
        tried.release()
        raise error("away")

    attempt_work = step("task")(task)

    @flow(name="tries")
    def run() -> None:
        attempt_work()

    with pytest.raises(error), collect_metrics() as metrics:
        run()
    assert tried._value == tries
    assert metrics.metrics["retries"] == counted


def test_artifacts_that_fail_do_not_fail_the_run() -> None:
    @flow(name="pictures")
    def run() -> str:
        publish_markdown("broken", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        publish_picture("large", "data:" + "x" * 200_001, "too large for the UI")
        return "done"

    assert run() == "done"
    assert attempt("nothing", lambda: [][1]) is None


def test_catching_up_with_an_unevaluated_model(tmp_path: Path) -> None:
    from tasks.models.registry import add_version

    add_version("shipped", str(tmp_path / "models/noise"))
    told: dict[str, Any] = catch_up(CatchUpParameters(models=[str(tmp_path / "models/noise")]))
    assert told == {"announced": {str(tmp_path / "models/noise"): [f"{tmp_path}/models/noise@1"]}}
