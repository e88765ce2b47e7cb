"""Background processes that outlive the starting command, identified by PID and environment variables."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pngmodel.errors import UserError

STACK, PART, RUN = "PNGNOISE_STACK_FOLDER", "PNGNOISE_STACK_PART", "PREFECT__FLOW_RUN_ID"
_EXEC_SECONDS, _KILL_SECONDS = 10.0, 10.0


@dataclass(frozen=True)
class StackProcess:
    """A process of a stack."""

    name: str
    pid: int
    log: str


class ProcessRegistry:
    """The processes started by a stack, recorded in a file in the folder of their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "processes.json"

    def entries(self) -> list[StackProcess]:
        """Return all processes started and not yet stopped by the stack, in order."""
        if not self._file.exists():
            return []
        try:
            return [StackProcess(**entry) for entry in json.loads(self._file.read_text())]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self._file}: is corrupted ({error}); stop the processes of the stack manually, then delete the file"
            ) from None

    def process(self, entry: StackProcess) -> psutil.Process | None:
        """Return the process of an entry, or None if it exited. A reused PID is detected by its environment."""
        with suppress(psutil.Error):
            process = psutil.Process(entry.pid)
            environment = process.environ()
            names = (environment.get(STACK), environment.get(PART))
            if is_alive(process) and names == (str(self.folder), entry.name):
                return process
        return None

    def running(self, name: str) -> StackProcess | None:
        """Return the process named ``name`` if it is running."""
        return next((entry for entry in self.entries() if entry.name == name and self.process(entry) is not None), None)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> StackProcess:
        """Start a background process; its output is written to ``NAME.log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            # In a new session it does not receive signals of the caller's terminal, and it handles SIGTERM and SIGINT,
            # which background processes of a shell ignore.
            child = subprocess.Popen(
                command,
                env=dict(environment) | {STACK: str(self.folder), PART: name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        entry = StackProcess(name, child.pid, str(log))
        deadline = time.monotonic() + _EXEC_SECONDS
        # Until exec, the child is a copy of this process and has its environment.
        while child.poll() is None and self.process(entry) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._write([*(other for other in self.entries() if other.name != name), entry])
        return entry

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries."""
        removed = set(names)
        self._write([entry for entry in self.entries() if entry.name not in removed])

    def processes(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Yield all running processes of the stack and their descendants with their environments.

        Descendants are found in any session and with any parent.
        """
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                if environment.get(STACK) == str(self.folder) and is_alive(process):
                    yield process, environment

    def flow_runs(self) -> list[psutil.Process]:
        """Return the processes of flow runs and their descendants."""
        return [process for process, environment in self.processes() if RUN in environment]

    def _write(self, entries: list[StackProcess]) -> None:
        temporary = self._file.with_suffix(".writing")
        temporary.write_text(json.dumps([asdict(entry) for entry in entries], indent=1))
        temporary.replace(self._file)


def terminate(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Terminate processes and wait; returns those still running after ``seconds``."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # a suspended process handles the signal only now
    return _wait(processes, seconds)


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(processes, _KILL_SECONDS)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process is running and not a zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (remaining := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return remaining
