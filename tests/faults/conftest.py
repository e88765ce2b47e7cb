"""Processes to kill: storage, Dask, and a campaign of seeded kills against one corpus."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import s3fs

from tasks.stores.filesystem import filesystem, list_files, read_bytes
from tasks.stores.tables import decode_table

_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
_WORKERS = 2
_POLL = 0.02
Command = Callable[[str, str, str, str | None], list[str]]
"""Of (output, clean, cluster file, part/parts): what makes the corpus, or that part of it."""


def quietly(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that it can be killed with all its children."""
    null = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True, **options)  # type: ignore[call-overload]


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(met: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(_POLL)


@dataclass
class Dask:
    """A scheduler, and workers without nannies that come and go."""

    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Path of the cluster file for --cluster."""
        self.folder.mkdir()
        file = self.folder / "scheduler.json"
        self.scheduler = self._run("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        wait_until(file.exists)
        for _ in range(_WORKERS):
            self.join()
        address = json.loads(file.read_text())["address"]
        (self.folder / "cluster.yaml").write_text(f"kind: address\naddress: {address}\n")
        return str(self.folder / "cluster.yaml")

    def join(self) -> None:
        self.workers.append(self._run("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"))

    def replace(self, number: int) -> None:
        """Kill a worker; another joins in its place."""
        kill(self.workers.pop(number))
        self.join()

    def stop(self) -> None:
        for process in [*self.workers, self.scheduler]:
            if process is not None:
                kill(process)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        file = ["--scheduler-file", str(self.folder / "scheduler.json")]
        return quietly([sys.executable, "-m", f"distributed.cli.{program}", *file, *arguments], cwd=self.folder)


@dataclass
class Campaign:
    """Kills of one corpus' processes. Kinds, order and moments follow from the seed; how far a run is then does not."""

    folder: Path
    output: str
    clean: str
    command: Command
    environment: dict[str, str]
    seed: int

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.kinds: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self.dask = Dask(self.folder / "dask")
        self.reference = str(self.folder / "undisturbed")

    @property
    def kills(self) -> int:
        return self.kinds.total()

    def parts(self, output: str | None = None) -> int:
        return len(list_files(f"{output or self.output}/parts"))

    def start(self, cluster: str, output: str | None = None, part: str | None = None) -> subprocess.Popen[bytes]:
        command = self.command(output or self.output, self.clean, cluster, part)
        return quietly(command, env=self.environment, cwd=self.folder)

    def undisturbed(self) -> None:
        """Make the corpus once in peace, and learn how long what takes."""
        started, run = time.monotonic(), self.start("inline", self.reference)
        wait_until(lambda: self.parts(self.reference) or run.poll() is not None)
        self.to_shards = time.monotonic() - started
        wait_until(lambda: (Path(self.reference) / "manifest").exists() or run.poll() is not None)
        made = time.monotonic()
        assert run.wait() == 0
        self.to_end = self.to_shards + time.monotonic() - made
        self.shards = self.parts(self.reference)

    def run(self, kills: int) -> None:
        cluster = self.dask.start()
        try:
            while self.kills < kills:
                if self.random.random() < 0.35:
                    self._parts(kills)
                else:
                    self._flow(cluster, kills)
            final = self.start(cluster if self.random.random() < 0.5 else "inline")
            assert final.wait() == 0
        finally:
            self.dask.stop()

    def _flow(self, cluster: str, kills: int) -> None:
        """A run on the cluster: some of its workers die, then it dies itself."""
        before, started, run = self.parts(), time.monotonic(), self.start(cluster)
        for _ in range(self.random.choice((0, 1, 2, 3))):
            number = self.random.randrange(_WORKERS)
            if self._moment(run, started) and self.kills < kills - 1:
                self._count("worker", before)
                self.dask.replace(number)
        self._kill(run, "flow", before, started)

    def _parts(self, kills: int) -> None:
        """Two runners of --parts side by side, killed one after the other."""
        before, started = self.parts(), time.monotonic()
        for run in [self.start("inline", part=f"{k}/2") for k in (1, 2)]:
            if self.kills < kills:
                self._kill(run, "parts", before, started)
            else:
                kill(run)

    def _kill(self, run: subprocess.Popen[bytes], kind: str, before: int, started: float) -> None:
        if self._moment(run, started):
            self._count(kind, before)
            kill(run)
        else:
            # 2: a lost cluster or a race for the last shards, in words
            assert run.returncode in (0, 2), f"{kind} ended with {run.returncode}"

    def _moment(self, run: subprocess.Popen[bytes], started: float) -> bool:
        """Wait for a random moment of a run; False when it ended before."""
        early, wanted, share = self.random.random() < 0.3, self.random.randint(1, 6), self.random.uniform(0.1, 0.9)
        here = self.parts()
        if here >= self.shards:  # what is left is publication
            at = started + self.to_shards * 0.8 + share * (self.to_end - 0.8 * self.to_shards)
            wait_until(lambda: time.monotonic() >= at or run.poll() is not None)
        elif early and time.monotonic() - started < share * self.to_shards:
            wait_until(lambda: time.monotonic() - started >= share * self.to_shards or run.poll() is not None)
        else:
            wait_until(lambda: self.parts() >= min(here + wanted, self.shards) or run.poll() is not None)
            time.sleep(share * 0.1)
        return run.poll() is None

    def _count(self, kind: str, before: int) -> None:
        self.kinds[kind] += 1
        now = self.parts()
        done = before >= self.shards or now >= self.shards
        self.moments["publication" if done else "during shards" if now > before else "before the first shard"] += 1

    def differing(self) -> list[str]:
        """Files that are not those of the undisturbed corpus, or that only one of the two has."""
        found, wanted = tree(self.output), tree(self.reference)
        return sorted(name for name in found | wanted if found.get(name) != wanted.get(name))

    def samples(self) -> list[int]:
        """Numbers of the samples in the manifest, in its order."""
        names = [name for name in list_files(self.output) if name.startswith("manifest/")]
        tables = [decode_table(read_bytes(f"{self.output}/{name}"), name) for name in names]
        return [sample for table in tables for sample in table.column("sample").to_pylist()]

    def tell(self) -> None:
        """Print what was killed, and when."""
        counted = [f"{counts}".removeprefix("Counter") for counts in (self.kinds, self.moments)]
        print(f"\n{self.kills} kills, seed {self.seed}: {counted[0]}, {counted[1]}; {self.shards} shards")


def tree(url: str) -> dict[str, str]:
    """sha256 of every file but the one that names places."""
    fs, _ = filesystem(url)
    fs.invalidate_cache()
    names = [name for name in list_files(url) if name != "sources.json"]
    return {name: hashlib.sha256(read_bytes(f"{url}/{name}")).hexdigest() for name in names}


@pytest.fixture
def photographs(tmp_path: Path, pair: Callable, save: Callable) -> Callable[[int], str]:
    """A folder of so many images of 64 windows each."""

    def make(count: int) -> str:
        for k in range(count):
            save(tmp_path / "clean" / f"{k:03d}.png", pair(k, 256, 256)[1])
        return str(tmp_path / "clean")

    return make


@pytest.fixture
def campaign(tmp_path: Path, photographs: Callable[[int], str]) -> Callable[..., Campaign]:
    def make(command: Command, seed: int, images: int, output: str | None = None, **environment: str) -> Campaign:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | environment
        return Campaign(tmp_path, output or str(tmp_path / "killed"), photographs(images), command, kept, seed)

    return make


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on an S3-speaking server that outlives every kill; children inherit the environment."""
    server = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert server.stdout
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.stdout.readline().strip())
    for name, value in (("ACCESS_KEY_ID", "fake"), ("SECRET_ACCESS_KEY", "fake"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("noise")
    yield "s3://noise"
    s3fs.S3FileSystem.clear_instance_cache()
    server.kill()
    server.wait()


@pytest.fixture
def prefect_api(tmp_path: Path) -> Iterator[str]:
    """URL of a Prefect server that outlives every kill: a temporary one for each run would take ten seconds more."""
    import socket
    from urllib.error import URLError
    from urllib.request import urlopen

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / ".prefect-server")}
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = quietly([str(Path(sys.executable).parent / "prefect"), *arguments], env=environment)
    url = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        try:
            with urlopen(f"{url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    wait_until(answers)
    yield url
    kill(server)
