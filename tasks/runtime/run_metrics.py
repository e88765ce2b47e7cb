"""What runs do, in figures for their operators: counts of work, wherever it is done, and one JSON file per run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_EVERY_SECONDS = 5.0

PAIRS, REJECTS, RETRIES = "pairs", "rejects", "retries"
BYTES_WRITTEN, BYTES_READ, MODEL_SECONDS = "bytes_written", "bytes_read", "model_seconds"
COUNTS = (PAIRS, REJECTS, RETRIES, BYTES_WRITTEN, BYTES_READ, MODEL_SECONDS)
"""What is counted: pairs made, samples or files rejected, tries after the first, bytes of whole files and objects (not
those of checkpoints and LMDB databases, which other libraries write), seconds in the model while corpora are made."""

_lock = threading.Lock()
_counts: Counter[str] = Counter()
_stages: dict[str, tuple[int, int, str]] = {}


def count(name: str, amount: float = 1) -> None:
    """Add to a count of this process (one of :data:`COUNTS`)."""
    if name not in COUNTS:
        raise ValueError(f"{name!r} is not among the counts {COUNTS}")
    with _lock:
        _counts[name] += amount  # type: ignore[assignment]  # Counter is typed for whole numbers


@contextmanager
def model_time() -> Iterator[None]:
    """Count the seconds of the block as time in which the model computes."""
    started = time.perf_counter()
    try:
        yield
    finally:
        count(MODEL_SECONDS, time.perf_counter() - started)


def reached(stage: str, done: int, total: int, unit: str) -> None:
    """Note how far a stage of the run in this process is."""
    with _lock:
        _stages[stage] = (done, total, unit)


def add(counts: dict[str, float]) -> None:
    """Add what another process counted."""
    for name, amount in counts.items():
        count(name, amount)


@dataclass(frozen=True)
class Counted(Generic[Item, Result]):
    """A function as it is sent to a worker process: returns its result, and what was counted there meanwhile."""

    function: Callable[[Item], Result]

    @property
    def __name__(self) -> str:
        """The function's, which dashboards show."""
        return self.function.__name__

    def __call__(self, item: Item) -> tuple[Result, dict[str, float]]:
        result = self.function(item)
        with _lock:  # taken away, so that of several threads each count is told once
            counts = {name: float(amount) for name, amount in _counts.items()}
            _counts.clear()
        return result, counts


@dataclass
class Metered:
    """A run's figures, complete when its block has ended."""

    metrics: dict[str, Any] = field(default_factory=dict)


@contextmanager
def metered() -> Iterator[Metered]:
    """Figures of what is counted in the block: all :data:`COUNTS`, ``seconds``, ``pairs_per_second``, ``stages`` (by
    name: done, total, unit), ``model_busy_share`` (time in the model over the block's time; workers side by side make
    it more than 1) and ``gpu_busy_share`` (mean utilisation as the driver says it; None without CUDA or nvidia-ml-py).
    Figures of pairs and of the model are None where no corpus was made.
    """
    found = Metered()
    with _lock:
        before, outer = Counter(_counts), dict(_stages)
        _stages.clear()
    started = time.perf_counter()
    with _gpu_samples() as samples:
        try:
            yield found
        finally:
            seconds = time.perf_counter() - started
            with _lock:
                counts = {name: _counts[name] - before[name] for name in COUNTS}
                stages = {name: dict(zip(("done", "total", "unit"), at, strict=True)) for name, at in _stages.items()}
                _stages.update(outer | _stages)  # a flow within a flow belongs to both
            made, computed = counts[PAIRS] or None, counts[MODEL_SECONDS] or None
            found.metrics = {name: round(amount, 3) for name, amount in counts.items()} | {
                "seconds": round(seconds, 3),
                "pairs": made,
                "pairs_per_second": made and round(made / seconds, 3),
                "model_seconds": computed and round(computed, 3),
                "model_busy_share": computed and round(computed / seconds, 3),
                "gpu_busy_share": round(fmean(samples) / 100, 3) if samples else None,
                "stages": stages,
            }


@contextmanager
def _gpu_samples() -> Iterator[list[int]]:
    """Utilisation of this process' CUDA device in per cent, every few seconds of the block; empty without one."""
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        import torch

        while torch.cuda.is_available() and not ended.wait(_EVERY_SECONDS):
            try:
                samples.append(int(torch.cuda.utilization()))
            except Exception:  # nvidia-ml-py is not installed, or does not tell it of this kind of device
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
