"""What runs leave for their operators, and tasks that are tried again."""

from __future__ import annotations

import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flows.exporter import RunFigures
from prefect import flow
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from tasks.runtime.run_records import newest_records

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


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PNGNOISE_RUN_METRICS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def cut(catalogue: str, output: Path) -> None:
    cluster = ClusterConfig(kind="local", workers=2)
    parameters = PatchParameters(
        catalogue=catalogue, output=str(output), geometry={"size": 32}, shard=8, cluster=cluster
    )
    extract_patches(parameters)


def test_a_run_leaves_its_figures_also_those_of_its_workers(catalogue: str, records: Path, tmp_path: Path) -> None:
    cut(catalogue, tmp_path / "patches")
    found = newest_records(str(records), ["extract_patches", "none"])["extract_patches"]
    assert (found["state"], found["flow"]) == ("completed", "extract_patches")
    assert found["name"] == f"patches {tmp_path.name}/patches: {tmp_path.name}/catalogue"
    assert found["stages"]["patches"]["done"] == 8
    stored = sum(path.stat().st_size for path in (tmp_path / "patches").rglob("*") if path.is_file())
    assert found["bytes_written"] >= stored
    assert (records / "extract_patches" / f"{found['run']}.json").read_bytes() == (
        records / "extract_patches/latest.json"
    ).read_bytes()


def test_a_failed_run_leaves_its_figures_too(records: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        evaluate_noise(EvaluateParameters(model="awgn", references=str(tmp_path / "nothing")))
    found = newest_records(str(records), ["evaluate_noise"])["evaluate_noise"]
    assert (found["state"], found["error"]) == ("failed", "UserError")


def test_prometheus_reads_the_newest_runs(catalogue: str, records: Path, tmp_path: Path) -> None:
    cut(catalogue, tmp_path / "patches")
    registry = CollectorRegistry()
    registry.register(RunFigures(str(records)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    finally:
        server.shutdown()
    seconds = {sample.labels["flow"]: sample.value for sample in families["pngnoise_seconds"].samples}
    assert (
        seconds["extract_patches"]
        == newest_records(str(records), ["extract_patches", "none"])["extract_patches"]["seconds"]
    )
    failed = {sample.labels["flow"]: sample.value for sample in families["pngnoise_failed"].samples}
    assert failed["extract_patches"] == 0.0


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_WAITS", [0.0, 0.0])


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
