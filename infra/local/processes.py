"""Processes that outlive the command which started them, known by their number and by marks in their environment."""

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
_BEGIN_SECONDS, _KILL_SECONDS = 10.0, 10.0


@dataclass(frozen=True)
class Started:
    """One part of a stack."""

    name: str
    pid: int
    log: str


class Ledger:
    """Which parts a stack has started, in a file beside their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "processes.json"

    def all(self) -> list[Started]:
        """Every part that was started and not ended by the stack, in order."""
        if not self._file.exists():
            return []
        try:
            return [Started(**entry) for entry in json.loads(self._file.read_text())]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self._file}: is damaged ({error}); end the processes that it should list, then delete it"
            ) from None

    def process(self, one: Started) -> psutil.Process | None:
        """The process of a part, None when it has ended; another one that got its number has not its marks."""
        with suppress(psutil.Error):
            found = psutil.Process(one.pid)
            marks = found.environ()
            if lives(found) and (marks.get(STACK), marks.get(PART)) == (str(self.folder), one.name):
                return found
        return None

    def running(self, name: str) -> Started | None:
        """The part of this name, if it runs."""
        return next((one for one in self.all() if one.name == name and self.process(one) is not None), None)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> Started:
        """Start a process that stays; what it says goes to ``NAME.log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            # A session of its own: a signal to the caller's terminal is not for it, and it heeds SIGTERM and SIGINT,
            # which processes that a shell sends into the background do not.
            child = subprocess.Popen(
                command,
                env=dict(environment) | {STACK: str(self.folder), PART: name},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        one = Started(name, child.pid, str(log))
        deadline = time.monotonic() + _BEGIN_SECONDS
        # Until the new program is loaded the process is a copy of this one and has its environment.
        while child.poll() is None and self.process(one) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._write([*(other for other in self.all() if other.name != name), one])
        return one

    def forget(self, names: Iterable[str]) -> None:
        """Take parts off the list."""
        gone = set(names)
        self._write([one for one in self.all() if one.name not in gone])

    def members(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """All living processes of the stack with their environments: parts, what they started, and what that did,
        in whatever session and whoever is its parent by now."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marks = process.environ()
                if marks.get(STACK) == str(self.folder) and lives(process):
                    yield process, marks

    def runs(self) -> list[psutil.Process]:
        """Flow runs, with what they started."""
        return [process for process, marks in self.members() if RUN in marks]

    def _write(self, entries: list[Started]) -> None:
        working = self._file.with_suffix(".writing")
        working.write_text(json.dumps([asdict(one) for one in entries], indent=1))
        working.replace(self._file)


def end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Ask processes to end, and wait; returns those that did not."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # one that is suspended hears it now
    return _waited(processes, seconds)


def kill(processes: list[psutil.Process]) -> None:
    """End processes that did not do it themselves."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _waited(processes, _KILL_SECONDS)


def lives(process: psutil.Process) -> bool:
    """Whether it still does something: what nobody has asked about since it ended (a zombie) does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _waited(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
