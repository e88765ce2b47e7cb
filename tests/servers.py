"""Real servers on loopback, in processes of their own or in this one, and what starts, awaits and ends processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from moto.server import ThreadedMotoServer

from infra.local.storage import server_command, server_environment

PROGRAMS = Path(sys.executable).parent
_POLL = 0.05
_DASK_WORKERS = 2


class Process(Protocol):
    """One of subprocess', or what looks like it."""

    pid: int

    def wait(self, timeout: Any = None) -> int: ...


@contextmanager
def s3_on_loopback() -> Iterator[str]:
    """URL of an S3-speaking server in this process, without buckets: those of other ones in it are forgotten."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        yield url
    finally:
        server.stop()


def quietly(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that it can be killed with all its children."""
    given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **given)  # type: ignore[call-overload]


def kill(process: Process) -> None:
    """SIGKILL to the whole session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(met: Callable[[], object], seconds: float = 120, what: str = "it") -> None:
    """Raises AssertionError when that does not come in time."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        time.sleep(_POLL)


def free_port() -> int:
    """A port on loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server speaks there, be it to say no."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@dataclass
class Server:
    """One process behind a port that stays its own however often it is killed."""

    command: list[str]
    environment: dict[str, str]
    health: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = quietly(self.command, env=self.environment, stdout=out, stderr=out)
        wait_until(lambda: answers(self.health), 180, f"an answer of {self.health}")

    def kill(self) -> None:
        if self.process is not None:
            kill(self.process)
            self.process = None


def s3_server(folder: Path, environment: dict[str, str]) -> Server:
    """An S3-speaking server that keeps everything on disk; its program is installed beside the tests' own."""
    folder.mkdir()
    port = free_port()
    own = {k: v for k, v in environment.items() if not k.startswith("AWS_")}
    command = server_command(Path(sys.prefix) / "s3-server")
    return Server(
        command, own | server_environment(folder, port), f"http://127.0.0.1:{port}/_health", folder / "server.log"
    )


def prefect_server(folder: Path, environment: dict[str, str]) -> Server:
    """A Prefect server with its SQLite in ``folder``; its API is at ``health`` without ``/health``."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [str(PROGRAMS / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = environment | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    own["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    return Server(command, own, f"http://127.0.0.1:{port}/api/health", folder / "server.log")


@dataclass
class Dask:
    """A scheduler, and workers without nannies that come and go."""

    folder: Path
    environment: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    @property
    def cluster(self) -> str:
        """The file for --cluster."""
        return str(self.folder / "cluster.yaml")

    @property
    def address(self) -> str:
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    def start(self) -> None:
        self.folder.mkdir()
        self.scheduler = self._run("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        wait_until((self.folder / "scheduler.json").exists)
        for _ in range(_DASK_WORKERS):
            self.join()
        Path(self.cluster).write_text(f"kind: address\naddress: {self.address}\n")

    def join(self) -> None:
        self.workers.append(self._run("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"))

    def lose(self, number: int) -> None:
        """Kill a worker."""
        kill(self.workers.pop(number % len(self.workers)))

    def replace(self, number: int) -> None:
        """Kill a worker; another joins in its place."""
        self.lose(number)
        self.join()

    def kill_scheduler(self) -> None:
        if self.scheduler is not None:
            kill(self.scheduler)
            self.scheduler = None

    def stop(self) -> None:
        while self.workers:
            self.lose(0)
        self.kill_scheduler()

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        file = ["--scheduler-file", str(self.folder / "scheduler.json")]
        command = [sys.executable, "-m", f"distributed.cli.{program}", *file, *arguments]
        return quietly(command, cwd=self.folder, env=self.environment)
