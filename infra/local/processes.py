"""Processes that outlive the command which started them, known by number and time of birth."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pngmodel.errors import UserError

_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Started:
    """One process of the stack."""

    name: str
    pid: int
    born: float
    log: str

    def process(self) -> psutil.Process | None:
        """The process, None when it has ended; another one that got its number is not it."""
        try:
            found = psutil.Process(self.pid)
            return found if found.create_time() == self.born and _lives(found) else None
        except psutil.NoSuchProcess:
            return None


class Ledger:
    """Which processes a stack has started, in a file beside their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "processes.json"

    def all(self) -> list[Started]:
        """Every process that was started and not ended by the stack, in order."""
        if not self._file.exists():
            return []
        try:
            return [Started(**entry) for entry in json.loads(self._file.read_text())]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self._file}: is damaged ({error}); end the processes that it should list, then delete it"
            ) from None

    def running(self, name: str) -> Started | None:
        """The process of this name, if it runs."""
        return next((one for one in self.all() if one.name == name and one.process() is not None), None)

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> Started:
        """Start a process that stays; what it says goes to ``NAME.log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            # A session of its own: a signal to the caller's terminal is not for it, and it heeds SIGTERM and SIGINT,
            # which processes that a shell sends into the background do not.
            child = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        one = Started(name, child.pid, psutil.Process(child.pid).create_time(), str(log))
        self._write([*(other for other in self.all() if other.name != name), one])
        return one

    def forget(self, names: Iterable[str]) -> None:
        """Take processes off the list."""
        gone = set(names)
        self._write([one for one in self.all() if one.name not in gone])

    def _write(self, entries: list[Started]) -> None:
        working = self._file.with_suffix(".writing")
        working.write_text(json.dumps([asdict(one) for one in entries], indent=1))
        working.replace(self._file)


def descendants(one: Started) -> list[psutil.Process]:
    """All that a process has started, and those have started; flow runs have sessions of their own, so no signal to a
    group reaches them."""
    process = one.process()
    return process.children(recursive=True) if process is not None else []


def end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Ask processes to end, and wait; returns those that did not."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    return _waited(processes, seconds)


def kill(processes: list[psutil.Process]) -> None:
    """End processes that did not do it themselves."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _waited(processes, _KILL_SECONDS)


def _waited(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(process: psutil.Process) -> bool:
    """Whether it still does something: what nobody has asked about since it ended (a zombie) does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
