"""Progress of long work: tasks report it here, whoever shows it (log, progress bar) listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.artifacts import log

_LOG_EVERY_SECONDS = 30.0


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


_listeners: list[Listener] = [_LogListener()]


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

    def report(done: int, total: int) -> None:
        _listeners[-1](Progress(stage, done, total, unit))

    return report


def shared(
    stage: str, unit: str, total: int, also: Callable[[int, int], None] = lambda done, total: None
) -> Callable[[int, int], None]:
    """A callable (done, total) for a stage that is made in pieces, each of which counts from 0 to its own total.

    ``also`` is told how far the whole stage is.
    """
    before, last = 0, 0

    def report(done: int, of_piece: int) -> None:
        nonlocal before, last
        if done < last:  # the next piece has begun
            before += last
        last = done
        reached = min(before + done, total)  # a piece that is tried again is counted twice
        _listeners[-1](Progress(stage, reached, total, unit))
        also(reached, total)

    return report


def report(progress: Progress) -> None:
    """Report a whole :class:`Progress`, for stages that have a note to show."""
    _listeners[-1](progress)
