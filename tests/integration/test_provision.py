"""`pngnoise deploy` against a server that wants a password: words without it, nothing changed by a second call."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.servers import PROGRAMS, prefect_server

SECRET = "team:planted-password"
HOOK = "http://127.0.0.1:9/planted-hook"
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh server with authentication, without the password."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "PREFECT_SERVER_API", "PNGNOISE"))}
    running = prefect_server(tmp_path_factory.mktemp("prefect"), clean | {"PREFECT_SERVER_API_AUTH_STRING": SECRET})
    running.start()
    home = {"PREFECT_HOME": str(tmp_path_factory.mktemp("client")), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    yield clean | home | {"PREFECT_API_URL": running.health.removesuffix("/health")}
    running.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One deployment of infra/ with its schedule and trigger, and all automations."""
    folder = tmp_path_factory.mktemp("files")
    content = yaml.safe_load(Path("infra/prefect.yaml").read_text())
    content["deployments"] = [d for d in content["deployments"] if d["name"] == "catch-up"]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    return ["--file", str(folder / "prefect.yaml"), "--automations", "infra/automations.yaml"]


def deploy(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAMS / "pngnoise"), "deploy", *arguments, "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def deployed(server: dict[str, str], files: list[str]) -> dict[str, str]:
    """The environment of a client that has deployed, and may do so again."""
    client = server | {"PREFECT_API_AUTH_STRING": SECRET, "PNGNOISE_FAILURE_WEBHOOK": HOOK}
    done = deploy(client | {"PNGNOISE_GPU_SLOTS": "3"}, *files)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["automations"] == ["pngnoise lost runs", "pngnoise failures"]
    return client


def ask(environment: dict[str, str], method: str, path: str, **content: Any) -> Any:
    user, password = SECRET.split(":")
    url = f"{environment['PREFECT_API_URL']}/{path}"
    answer = httpx.request(method, url, json=content or None, auth=(user, password), timeout=30)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def test_without_the_password_it_says_what_is_missing(server: dict[str, str], files: list[str]) -> None:
    assert httpx.post(f"{server['PREFECT_API_URL']}/flows/filter", json={}).status_code == httpx.codes.UNAUTHORIZED
    refused = deploy(server, *files)
    assert refused.returncode == 2
    assert "requires a password; set PREFECT_API_AUTH_STRING" in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.stderr


def test_called_twice_nothing_changes_and_switches_stay(deployed: dict[str, str], files: list[str]) -> None:
    client = deployed
    deployment = ask(client, "POST", "deployments/filter")[0]
    schedule = deployment["schedules"][0]
    assert not schedule["active"]
    rules = {rule["name"]: rule for rule in ask(client, "POST", "automations/filter")}
    ask(client, "PATCH", f"deployments/{deployment['id']}/schedules/{schedule['id']}", active=True)
    ask(client, "PATCH", f"automations/{rules['pngnoise failures']['id']}", enabled=False)
    again = deploy(client, *files)  # without PNGNOISE_GPU_SLOTS, which leaves the slots as they are
    assert again.returncode == 0, again.stderr
    found = ask(client, "POST", "deployments/filter")[0]
    assert (found["id"], found["schedules"][0]["active"]) == (deployment["id"], True)
    after = {rule["name"]: rule for rule in ask(client, "POST", "automations/filter")}
    assert {rule["id"] for rule in after.values()} == {rule["id"] for rule in rules.values()}
    assert not after["pngnoise failures"]["enabled"]
    assert after["pngnoise lost runs"] == rules["pngnoise lost runs"]
    assert ask(client, "GET", "work_pools/gpu")["concurrency_limit"] == 3
    queues = ask(client, "POST", "work_pools/gpu/queues/filter", offset=0)
    assert {q["name"]: q["priority"] for q in queues if q["name"] != "default"} == {
        "evaluation": 1,
        "corpora": 2,
        "training": 3,
    }


def test_secrets_are_nowhere_in_what_the_server_shows(deployed: dict[str, str]) -> None:
    shown = [ask(deployed, "POST", f"{kind}/filter") for kind in ("deployments", "automations", "work_pools")]
    shown.append(ask(deployed, "POST", "block_documents/filter", include_secrets=False))
    assert "pngnoise-failures" in str(shown[-1])
    assert "planted" not in str(shown)
