"""Progress reporting: tasks report here, and the current listener (log, progress bar) displays it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.runtime.artifacts import log, progress_artifact
from tasks.runtime.run_metrics import record_stage

_LOG_EVERY_SECONDS = 30.0
_BAR_AFTER_SECONDS = 3.0  # shorter stages get no progress artifact, to save requests to the server


@dataclass(frozen=True)
class Progress:
    """Progress of one stage of a run."""

    stage: str
    done: int
    total: int
    unit: str
    note: str = ""


Listener = Callable[[Progress], None]


class _LogListener:
    """Default listener: logs a message every 30 s and at the end of a stage."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done < progress.total and now - self._last.get(progress.stage, 0.0) < _LOG_EVERY_SECONDS:
            return
        self._last[progress.stage] = now
        log(f"{progress.stage}: {progress.done} of {progress.total} {progress.unit} {progress.note}".rstrip())


class _Bars:
    """Progress artifacts of one run, for stages that take longer than 3 s."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._bars: dict[str, Callable[[int, int], None]] = {}

    def __call__(self, progress: Progress) -> None:
        stage, started = progress.stage, self._started.setdefault(progress.stage, time.monotonic())
        if stage not in self._bars:
            if progress.done >= progress.total or time.monotonic() - started < _BAR_AFTER_SECONDS:
                return
            self._bars[stage] = progress_artifact(f"progress-{stage}", f"{progress.total} {progress.unit}")
        self._bars[stage](progress.done, progress.total)


_listeners: list[Listener] = [_LogListener()]
_runs: list[_Bars] = []


@contextmanager
def progress_bars() -> Iterator[None]:
    """Publish progress artifacts for long stages of the block, in addition to the current listener."""
    _runs.append(_Bars())
    try:
        yield
    finally:
        _runs.pop()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send the progress of this block to ``listener`` instead of the current listener."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def reporter(stage: str, unit: str) -> Callable[[int, int], None]:
    """Return a callable (done, total) that reports the progress of one stage."""

    def update(done: int, total: int) -> None:
        report(Progress(stage, done, total, unit))

    return update


def cumulative_reporter(stage: str, unit: str, total: int) -> Callable[[int, int], None]:
    """Return a callable (done, total) for a stage of several parts, each of which counts from 0 to its own total."""
    before, last = 0, 0

    def update(done: int, part_total: int) -> None:
        nonlocal before, last
        if done < last:  # the next part has started
            before += last
        last = done
        so_far = min(before + done, total)  # a retried part is counted twice
        report(Progress(stage, so_far, total, unit))

    return update


def report(progress: Progress) -> None:
    """Report ``progress`` to the current listener; use :func:`reporter` unless there is a note."""
    record_stage(progress.stage, progress.done, progress.total, progress.unit)
    _listeners[-1](progress)
    if _runs:
        _runs[-1](progress)
