"""What runs flows, to be killed with SIGKILL: commands that start in a second, and a worker of Prefect's."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.servers import PROGRAMS, kill, quietly


class Launched:
    """A process of :class:`Launcher`; looks like one of subprocess'."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None
        self.ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        assert self.ended.wait(timeout), f"process {self.pid} did not end in {timeout} s"
        assert self.returncode is not None
        return self.returncode


class Launcher:
    """Starts commands of pngnoise in a second each (launcher.py)."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, str(Path(__file__).with_name("launcher.py"))]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._started: queue.Queue[Launched] = queue.Queue()
        self._running: dict[int, Launched] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        self._started.get(timeout=180)  # it has imported everything
        self._running.clear()

    def start(self, arguments: list[str], folder: Path, errors: Path) -> Launched:
        assert self._process.stdin
        asked = {"arguments": arguments, "folder": str(folder), "errors": str(errors)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._started.get(timeout=120)

    def stop(self) -> None:
        for run in list(self._running.values()):
            kill(run)
        kill(self._process)

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            told = json.loads(line)
            if "code" in told:
                run = self._running.pop(told["pid"])
                run.returncode = told["code"]
                run.ended.set()
            else:
                self._running[told["pid"]] = Launched(told["pid"])
                self._started.put(self._running[told["pid"]])


@dataclass
class Worker:
    """A worker of Prefect's, which runs flows in processes of their own."""

    environment: dict[str, str]
    pool: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(PROGRAMS / "prefect"), "worker", "start", "--pool", self.pool, "--type", "process"]
        with self.log.open("ab") as out:
            quick = self.environment | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
            self.process = quietly(command, env=quick, stdout=out, stderr=out)

    def kill(self, *, with_runs: bool) -> None:
        """Without its runs these go on as orphans."""
        if with_runs:
            self.kill_runs()
        if self.process is not None:
            kill(self.process)
            self.process = None

    def kill_runs(self) -> None:
        """Each run is a session of its own."""
        if self.process is not None:
            for run in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    run.kill()
