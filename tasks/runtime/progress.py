"""Progress of long work: tasks report it here, whoever shows it (log, progress bar) listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.runtime.artifacts import log, progress_artifact
from tasks.runtime.run_metrics import reached

_LOG_EVERY_SECONDS = 30.0
_BAR_AFTER_SECONDS = 3.0  # what is over sooner needs no bar, and a bar is a request to the server


@dataclass(frozen=True)
class Progress:
    """How far one stage of a run is."""

    stage: str
    done: int
    total: int
    unit: str
    note: str = ""


Listener = Callable[[Progress], None]


class _LogListener:
    """The default: a line in the run's log every half minute and at the end of a stage."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done < progress.total and now - self._last.get(progress.stage, 0.0) < _LOG_EVERY_SECONDS:
            return
        self._last[progress.stage] = now
        log(f"{progress.stage}: {progress.done} of {progress.total} {progress.unit} {progress.note}".rstrip())


class _Bars:
    """Progress artifacts of one run, of stages that take long."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._bars: dict[str, Callable[[int, int], None]] = {}

    def __call__(self, progress: Progress) -> None:
        stage, started = progress.stage, self._begun.setdefault(progress.stage, time.monotonic())
        if stage not in self._bars:
            if progress.done >= progress.total or time.monotonic() - started < _BAR_AFTER_SECONDS:
                return
            self._bars[stage] = progress_artifact(f"progress-{stage}", f"{progress.total} {progress.unit}")
        self._bars[stage](progress.done, progress.total)


_listeners: list[Listener] = [_LogListener()]
_runs: list[_Bars] = []


@contextmanager
def bars() -> Iterator[None]:
    """Show stages of the block that take long as progress artifacts of the run, whoever listens."""
    _runs.append(_Bars())
    try:
        yield
    finally:
        _runs.pop()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send the progress of everything in this block to ``listener`` instead."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def reporter(stage: str, unit: str) -> Callable[[int, int], None]:
    """A callable (done, total) for one stage."""

    def tell(done: int, total: int) -> None:
        report(Progress(stage, done, total, unit))

    return tell


def shared(stage: str, unit: str, total: int) -> Callable[[int, int], None]:
    """A callable (done, total) for a stage that is made in pieces, each of which counts from 0 to its own total."""
    before, last = 0, 0

    def tell(done: int, of_piece: int) -> None:
        nonlocal before, last
        if done < last:  # the next piece has begun
            before += last
        last = done
        so_far = min(before + done, total)  # a piece that is tried again is counted twice
        report(Progress(stage, so_far, total, unit))

    return tell


def report(progress: Progress) -> None:
    """Report a whole :class:`Progress`, for stages that have a note to show."""
    reached(progress.stage, progress.done, progress.total, progress.unit)
    _listeners[-1](progress)
    if _runs:
        _runs[-1](progress)
