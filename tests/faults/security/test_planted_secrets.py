"""Secrets are planted in the environment, real runs are done, and all that is left behind is searched for them."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import s3fs

from tests.commands import run
from tests.servers import PROGRAMS, prefect_server, s3_on_loopback

SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDACCESSKEY0001",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-access-key",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "PREFECT_API_AUTH_STRING": "team:planted-password",
    "PNGNOISE_FAILURE_WEBHOOK": "http://127.0.0.1:9/planted-hook",
}
IN_URLS = ("plantedkey", "planted-in-url")
BASIC = base64.b64encode(SECRETS["PREFECT_API_AUTH_STRING"].encode())
NEEDLES = [*(s.encode() for s in SECRETS.values()), *(s.encode() for s in IN_URLS), BASIC, b"planted"]
SMALL = """\
denoiser: {name: dncnn, settings: {depth: 3, width: 4}}
train:
  {steps: 2, batch: 1, crop: 16, optimiser: adam, learning_rate: 0.001, gradient_clip: null, ema: 0.0,
   checkpoint_every: 1, log_every: 1}
"""
pytestmark = pytest.mark.timeout(500)


@dataclass(frozen=True)
class Team:
    """A server with a password, object storage, and where both and the commands leave what they leave."""

    folder: Path
    environment: dict[str, str]
    storage: s3fs.S3FileSystem

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(PROGRAMS / "pngnoise"), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=self.folder / "task", capture_output=True, timeout=200)
        (self.folder / "said" / f"{time.monotonic_ns()}").write_bytes(done.stdout + b"\n" + done.stderr)
        return done

    def ask(self, path: str, **content: Any) -> Any:
        user, password = SECRETS["PREFECT_API_AUTH_STRING"].split(":")
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        answer = httpx.post(url, json=content, auth=(user, password), timeout=30)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    for name in ("task", "said", "server", "client"):
        (folder / name).mkdir()
    mine = ("PREFECT_", "AWS_", "PNGNOISE_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    clean |= {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    server = prefect_server(
        folder / "server", clean | {"PREFECT_SERVER_API_AUTH_STRING": SECRETS["PREFECT_API_AUTH_STRING"]}
    )
    server.log = folder / "said" / "server"
    with s3_on_loopback() as address:
        server.start()
        region = {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        client = clean | region | SECRETS | {"PREFECT_API_URL": server.health.removesuffix("/health")}
        client |= {"PREFECT_HOME": str(folder / "client"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        client |= {"PREFECT_LOGGING_LEVEL": "DEBUG"}
        keys = {"key": "planted", "secret": "planted", "client_kwargs": {"endpoint_url": address}}
        files = s3fs.S3FileSystem(**keys, skip_instance_cache=True)
        files.mkdir("noise")
        yield Team(folder, client, files)
        server.kill()


WITH_SECRETS = [
    f"s3://{IN_URLS[0]}:{IN_URLS[1]}@noise/x",
    f"http://{IN_URLS[0]}:{IN_URLS[1]}@127.0.0.1:9/bundle",
    f"https://127.0.0.1:9/bundle?X-Amz-Signature={IN_URLS[1]}",
]


def test_urls_with_secrets_are_refused() -> None:
    for location in WITH_SECRETS:
        done = run("evaluate", "noise", "--model", location, "--references", "shipped")
        assert done.exit_code == 2
        words = " ".join(done.stderr.split())
        assert "contains a user, password or signature" in words
        assert "AWS_ACCESS_KEY_ID" in words
        assert "Traceback" not in done.stderr
        assert not [needle for needle in IN_URLS if needle in done.stdout + done.stderr]


def test_nothing_that_is_left_behind_holds_a_secret(team: Team, folders: tuple[Path, Path]) -> None:
    patches = "s3://noise/patches"
    lines = (
        f"ingest {folders[0]} --adapter {folders[1]} --output s3://noise/catalogue",
        f"patches s3://noise/catalogue --size 32 --output {patches}",
        f"generate --model heteroscedastic --references {patches} --clean {patches} --crop 32 --output s3://noise/corpora/a",
        f"evaluate noise --model awgn --references {patches} --limit 2 --output s3://noise/e.json --report s3://noise/e.html",
        f"train-denoiser small.yaml --real {patches} --seeds 0 --output denoisers",
    )
    good = [line.split() for line in lines]
    lines = (
        "patches s3://noise/nothing --size 32 --output s3://noise/x",
        "generate --model heteroscedastic --output s3://no-such-bucket/a --crop 64",
    )
    bad = [line.split() for line in lines]
    (team.folder / "task" / "small.yaml").write_text(SMALL)
    for arguments in good:
        done = team.run(*arguments)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    for arguments in bad:
        assert team.run(*arguments).returncode != 0
    assert team.run("evaluate", "noise", "--model", WITH_SECRETS[0], "--references", "shipped").returncode == 2
    runs = team.ask("flow_runs/filter", limit=100)
    assert {run["state_type"] for run in runs} == {"COMPLETED", "FAILED"}
    assert len(runs) == len(good) + len(bad)  # a URL with a secret is refused before there is a run
    found = dict(everything(team, [run["id"] for run in runs]))
    assert found  # and it is what there should be, so that an empty answer does not pass
    for kind in ("flow_runs", "task_runs", "artifacts", "logs", "events", "states"):
        assert len(found[f"server: {kind}"]) > 100, kind
    for name in (
        "corpora/a/corpus.json",
        "corpora/a/report.html",
        "corpora/a/manifest/00000.parquet",
        "e.html",
    ):
        assert f"object: {name}" in found, sorted(found)
    assert b"run-metrics" in found["server: artifacts"]
    assert any("tfevents" in name for name in found), sorted(found)
    leaks = {name: needle for name, content in found.items() for needle in NEEDLES if needle in content}
    assert leaks == {}


def everything(team: Team, runs: list[str]) -> Iterator[tuple[str, bytes]]:
    """Whatever a colleague, or whoever finds the disk of the server, could read."""
    for kind in ("flow_runs", "task_runs", "artifacts", "flows", "deployments", "variables", "block_documents"):
        yield f"server: {kind}", str(team.ask(f"{kind}/filter", limit=200)).encode()
    lines: list[Any] = []
    while page := team.ask("logs/filter", limit=200, offset=len(lines)):
        lines += page
    yield "server: logs", str(lines).encode()
    yield "server: events", str(team.ask("events/filter", limit=50)).encode()
    address, auth = team.environment["PREFECT_API_URL"], tuple(SECRETS["PREFECT_API_AUTH_STRING"].split(":"))
    states = [
        httpx.get(f"{address}/flow_run_states/", params={"flow_run_id": run}, auth=auth, timeout=30).text  # type: ignore[arg-type]
        for run in runs
    ]
    yield "server: states", "".join(states).encode()
    for part in ("server", "client", "task", "said"):  # the database itself is among these
        for path in (team.folder / part).rglob("*"):
            if path.is_file():
                yield f"file: {path.relative_to(team.folder)}", decoded(path.name, path.read_bytes())
    for location in team.storage.find("noise"):
        name = location.removeprefix("noise/")
        yield f"object: {name}", decoded(name, team.storage.cat_file(location))


def decoded(name: str, content: bytes) -> bytes:
    """A file, with what a packed one holds behind it."""
    if not name.endswith(".parquet"):
        return content
    table = pq.read_table(io.BytesIO(content))
    return content + str((table.schema.metadata, table.to_pylist())).encode()


@pytest.mark.parametrize("needle", NEEDLES, ids=repr)
def test_the_search_finds_what_is_planted_in_a_table(needle: bytes) -> None:
    import pyarrow as pa

    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": [needle.decode()] * 3}), buffer, compression="zstd")
    assert needle in decoded("x.parquet", buffer.getvalue())
