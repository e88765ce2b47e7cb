"""The pipeline as a team runs it, from nothing: make up, train, everything that follows by itself, the UI, make down.

One story in one stack, in the order of the tests.
"""

from __future__ import annotations

import html
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)
HEARTBEATS = 90  # seconds without one, after which a run counts as lost


def killed(team: Any, name: str) -> None:
    """kill -9 of a worker with the flow runs that it started, as a machine that loses power."""
    worker = next(
        one for one in json.loads(Path(team.folder / "stack/processes.json").read_text()) if one["name"] == name
    )
    process = psutil.Process(worker["pid"])
    for victim in [process, *process.children(recursive=True)]:
        victim.kill()


def test_up_from_nothing(team: Any) -> None:
    said = team.make("up").stdout
    assert team.api.removesuffix("/api") in said
    assert team.endpoint in said
    names = {d["name"] for d in team.ask("POST", "deployments/filter", limit=200)}
    assert {"corpus", "train", "evaluate-noise", "evaluate-denoiser", "promote", "catch-up"} <= names
    schedules = [s for d in team.ask("POST", "deployments/filter", limit=200) for s in d["schedules"]]
    assert {s["slug"] for s in schedules} == {"nightly", "weekly", "daily"}
    assert not any(s["active"] for s in schedules)
    pool = team.ask("GET", "work_pools/gpu")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 1)
    form = team.deployment("corpus")["parameter_openapi_schema"]
    fields = form["definitions"]["CorpusParameters"]["properties"]
    assert fields["scale"]["description"] == "Independent noisy samples per clean patch."
    assert fields["mode"]["enum"] == ["pairs", "noisy", "recipe"]
    assert json.loads(team.object("data/samples/patches/store.json"))["layout"]["pairs"] == 32


def test_a_killed_worker_is_started_again_and_nothing_is_made_twice(team: Any) -> None:
    """The run that was lost with it is marked as crashed later, see below."""
    lost = team.run("doomed", output="{storage}/corpora/doomed/{date}", scale=200, shard=4)
    team.until(lambda: team.artifacts(lost).get("progress-generate"), "the start of the run", 300)
    before = {d["name"]: d["id"] for d in team.ask("POST", "deployments/filter", limit=200)}
    automations = team.ask("POST", "automations/filter", limit=200)
    nightly = team.deployment("corpus")["schedules"][0]
    team.ask(
        "PATCH",
        f"deployments/{before['train']}/schedules/{team.deployment('train')['schedules'][0]['id']}",
        active=True,
    )
    killed(team, "worker-cpu")
    said = team.make("up").stdout
    assert "prefect-server is already running" in said
    assert "starting worker-cpu" in said
    assert {d["name"]: d["id"] for d in team.ask("POST", "deployments/filter", limit=200)} == before
    again = team.ask("POST", "automations/filter", limit=200)
    assert sorted(a["name"] for a in again) == sorted(a["name"] for a in automations)
    lost_runs = [a for a in [*automations, *again] if a["name"] == "pngnoise lost runs"]
    watching = [a["trigger"]["id"] for a in lost_runs]
    assert len(set(watching)) == 1, "with a new trigger the server forgets the run that it was watching"
    assert team.deployment("train")["schedules"][0]["active"], "a switch that somebody set was set back"
    assert team.deployment("corpus")["schedules"][0]["active"] == nightly["active"]
    assert team.ask("GET", f"flow_runs/{lost}")["state"]["type"] == "RUNNING"


def test_training_is_followed_by_evaluation_promotion_and_a_corpus(team: Any) -> None:
    team.run("train")
    trained = team.ended("train")
    assert trained["state"]["type"] == "COMPLETED", trained["state"]["message"]
    evaluated = team.ended("evaluate-noise")
    assert evaluated["state"]["type"] == "COMPLETED", evaluated["state"]["message"]
    assert evaluated["parameters"]["parameters"]["model"] == "s3://pngnoise/models/noise@1"
    assert evaluated["created_by"]["type"] == "AUTOMATION"
    promoted = team.ended("promote")
    assert promoted["state"]["type"] == "COMPLETED", promoted["state"]["message"]
    champion = json.loads(team.object("models/noise/champion.json"))
    assert champion["version"] == 1
    made = team.ended("corpus")
    assert made["state"]["type"] == "COMPLETED", made["state"]["message"]
    corpus = json.loads(team.object(f"corpora/champion/{champion['digest'][:12]}/corpus.json"))
    assert corpus["layout"]["pairs"] == 48
    assert made["name"] == f"corpus champion/{champion['digest'][:12]}: models/noise@1 on samples/patches, scale 2"


def switch_nightly(team: Any, *, on: bool) -> None:
    deployment = team.deployment("corpus")
    location = f"deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}"
    team.ask("PATCH", location, active=on, schedule={"cron": "* * * * *", "timezone": "UTC"})


def test_a_schedule_is_switched_on(team: Any) -> None:
    switch_nightly(team, on=True)  # its run is awaited below, after others
    assert team.deployment("corpus")["schedules"][0]["active"]


def test_every_run_says_what_it_did(team: Any) -> None:
    for name in ("train", "evaluate-noise", "promote", "corpus"):
        run = team.runs(name)[0]
        shown = team.artifacts(run["id"])
        assert "run-metrics" in shown
        metrics = html.unescape(shown["run-metrics"])  # "@" is escaped
        assert "| state | completed |" in metrics
        assert f"| name | {run['name']} |" in metrics
        assert quantity(metrics, "seconds") > 0
    assert quantity(metrics, "pairs") == 48
    assert quantity(metrics, "bytes_written") > 48 * 128 * 128
    assert 0 < quantity(metrics, "model_busy_share") < 1
    shown = team.artifacts(team.runs("corpus")[0]["id"])
    digest = json.loads(team.object("models/noise/champion.json"))["digest"]
    assert "| AWGN |" in shown["corpus"]
    assert "data:image/jpeg;base64," in shown["corpus-samples"]
    assert f"{team.endpoint}/pngnoise/corpora/champion" in shown["corpus-report"]
    run = {"flow_run_id": {"any_": [team.runs("corpus")[0]["id"]]}}
    told = [line["message"] for line in team.ask("POST", "logs/filter", logs=run, limit=200)]
    assert any(digest in line for line in told)


def quantity(metrics: str, key: str) -> float:
    """A number in the artifact with the metrics of a run."""
    found = re.search(rf"\| {key} \| ([\d.e+-]+) \|", metrics)
    assert found is not None, metrics
    return float(found[1])


def test_a_denoiser_of_the_new_corpus_is_evaluated_and_refused_by_the_gate(team: Any) -> None:
    """30 steps make no champion: the refusal is a failed run that says why."""
    assert team.ended("train-denoiser")["state"]["type"] == "COMPLETED"
    evaluated = team.ended("evaluate-denoiser")
    assert evaluated["state"]["type"] == "COMPLETED", evaluated["state"]["message"]
    assert len(evaluated["parameters"]["parameters"]["denoisers"]) == 2
    refused = team.ended("promote", 2)
    assert refused["state"]["type"] == "FAILED"
    assert re.search(r"not promoted.*sidd\.psnr is \d+\.\d+, must be at least 30", refused["state"]["message"])
    assert json.loads(team.object("models/denoiser/versions/000002.json"))["version"] == 2


def test_a_failure_is_notified(team: Any) -> None:
    def of_the_refusal() -> list[str]:  # others may have been sent before: of a run that is lost on purpose
        return [note["text"] for note in team.notified if "promote_model Failed" in note["text"]]

    assert "must be at least 30" in team.until(of_the_refusal, "the notification", 60)[0]


def test_the_cron_schedule_has_produced_a_run(team: Any) -> None:
    """The nightly corpus, of the champion, every minute: with one release of a dependency none is ever made."""
    try:
        made = team.ended("corpus", 2)
    finally:
        switch_nightly(team, on=False)
    assert made["state"]["type"] == "COMPLETED", made["state"]["message"]
    assert made["auto_scheduled"]
    day = made["expected_start_time"][:10]
    alias = json.loads(team.object("corpora/nightly/latest.json"))
    assert alias["corpus"] == day
    recorded = json.loads(team.object(f"corpora/nightly/{day}/sources.json"))
    assert recorded["seed"] == int(day.replace("-", ""))


def test_a_lost_run_is_marked_as_crashed(team: Any) -> None:
    lost = team.ended("doomed", seconds=2 * HEARTBEATS)
    assert lost["state"]["type"] == "CRASHED"
    assert "No sign of life" in lost["state"]["message"]


def test_the_ui_shows_the_run(team: Any, browser: Any, look: Callable[..., None], picture: Callable[..., Path]) -> None:
    run, ui = team.runs("corpus")[0], team.api.removesuffix("/api")
    browser.get(f"{ui}/v2/runs/flow-run/{run['id']}")
    look(browser, run["name"], "Completed", "Work Pool", "generate_synthetic_corpus, commit")
    time.sleep(3)  # the graph is drawn on a canvas, after the rest
    drawn = browser.execute_script(
        "const c = document.querySelector('canvas'); return c ? [c.width, c.height, c.toDataURL().length] : null"
    )
    assert drawn is not None
    assert min(drawn[:2]) > 100
    assert drawn[2] > 2000, "the graph of the run's tasks is empty"
    picture(browser, "run")
    browser.get(f"{ui}/v2/runs/flow-run/{run['id']}?tab=TaskRuns")
    look(browser, "plan_corpus", "shards-0-0", "quality_gate", "publish_corpus")
    browser.get(f"{ui}/v2/runs/flow-run/{run['id']}?tab=Artifacts")
    look(browser, "corpus-samples", "corpus-report", "run-metrics")
    picture(browser, "artifacts")


def test_the_ui_shows_artifacts_and_their_pictures(
    team: Any, browser: Any, look: Callable[..., None], widths: Callable[..., list[int]], picture: Callable[..., Path]
) -> None:
    ui = team.api.removesuffix("/api")
    for deployment, key, words in (
        ("corpus", "corpus-samples", "synthetic noisy"),
        ("evaluate-noise", "noise-examples", "real and synthetic noise"),
        ("evaluate-denoiser", "denoised-sidd", "best, median and worst"),
    ):
        wanted = {"id": {"any_": [team.runs(deployment)[0]["id"]]}}
        found = team.ask("POST", "artifacts/filter", flow_runs=wanted, artifacts={"key": {"any_": [key]}})
        browser.get(f"{ui}/v2/artifacts/artifact/{found[0]['id']}")
        look(browser, words)
        team.until(lambda: widths(browser), f"the picture of {key}", 30)
        assert min(widths(browser)) > 300
        picture(browser, key)
    found = team.ask("POST", "artifacts/filter", artifacts={"key": {"any_": ["corpus"]}})
    browser.get(f"{ui}/v2/artifacts/artifact/{found[0]['id']}")
    look(browser, "Metrics", "heteroscedastic Gaussian", "floor (perfect generator)")
    picture(browser, "corpus")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("dashboard", ("Flow Runs", "Task Runs")),
        ("runs", ("corpus champion/", "evaluate-A models/noise@1")),
        ("deployments", ("evaluate-noise", "corpus")),
        ("automations", ("a noise model was trained: evaluate it", "evaluate-noise")),
        ("work-pools", ("cpu", "gpu")),
    ],
)
def test_pages_of_the_ui(
    team: Any, browser: Any, look: Callable[..., None], picture: Callable[..., Path], page: str, words: tuple[str, ...]
) -> None:
    browser.get(f"{team.api.removesuffix('/api')}/v2/{page}")
    look(browser, *words)
    picture(browser, page)


def test_the_form_of_a_deployment_shows_typed_parameters(
    team: Any, browser: Any, look: Callable[..., None], picture: Callable[..., Path]
) -> None:
    location = f"deployments/deployment/{team.deployment('corpus')['id']}/run"
    browser.get(f"{team.api.removesuffix('/api')}/v2/{location}")
    look(browser, "Independent noisy samples per clean patch.", "Seed of the samples.")
    picture(browser, "form")


def test_the_report_opens_from_storage(
    team: Any, browser: Any, look: Callable[..., None], widths: Callable[..., list[int]], picture: Callable[..., Path]
) -> None:
    link = re.search(r"\((http[^)]+)\)", team.artifacts(team.runs("corpus")[0]["id"])["corpus-report"])
    assert link is not None
    assert urlsplit(link[1]).path.endswith("/report.html")
    browser.get(link[1])
    look(browser, "Synthetic noise corpus", "48 noisy/clean pairs")
    assert len(widths(browser)) >= 5
    assert min(widths(browser)) > 300
    picture(browser, "report")


def test_down_leaves_no_process(team: Any) -> None:
    assert len(team.processes()) >= 4
    said = team.make("down").stdout
    assert "worker-gpu-0" in said
    assert team.processes() == []
    for address in (team.api, team.endpoint):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", urlsplit(address).port)) != 0
    assert json.loads((team.folder / "stack/processes.json").read_text()) == []
    team.make("down")  # twice is no error
