"""Metrics of a run for its operators: counts of this process and of workers, duration, throughput, GPU utilisation."""

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
_GPU_SAMPLE_SECONDS = 5.0

PAIRS, REJECTS, RETRIES = "pairs", "rejects", "retries"
BYTES_WRITTEN, BYTES_READ, MODEL_SECONDS = "bytes_written", "bytes_read", "model_seconds"
COUNTS = (PAIRS, REJECTS, RETRIES, BYTES_WRITTEN, BYTES_READ, MODEL_SECONDS)
"""Names of the counters: generated pairs, rejected samples or files, retries, bytes of files and objects (without
checkpoints and LMDB databases, which other libraries write), and seconds in the model during corpus generation."""

_lock = threading.Lock()
_counts: Counter[str] = Counter()
_stages: dict[str, tuple[int, int, str]] = {}


def count(name: str, amount: float = 1) -> None:
    """Add ``amount`` to a counter of this process (one of :data:`COUNTS`)."""
    if name not in COUNTS:
        raise ValueError(f"unknown counter {name!r}; expected one of {COUNTS}")
    with _lock:
        _counts[name] += amount  # type: ignore[assignment]  # Counter is typed for int


@contextmanager
def model_time() -> Iterator[None]:
    """Add the duration of the block to the seconds spent in the model."""
    started = time.perf_counter()
    try:
        yield
    finally:
        count(MODEL_SECONDS, time.perf_counter() - started)


def record_stage(stage: str, done: int, total: int, unit: str) -> None:
    """Record the progress of a stage of the run in this process."""
    with _lock:
        _stages[stage] = (done, total, unit)


def add_counts(counts: dict[str, float]) -> None:
    """Add the counts of another process."""
    for name, amount in counts.items():
        count(name, amount)


@dataclass(frozen=True)
class Counted(Generic[Item, Result]):
    """Wraps a function for a worker process: a call returns its result and the counts of the worker since the last."""

    function: Callable[[Item], Result]

    @property
    def __name__(self) -> str:
        """Name of the wrapped function, shown in the Dask dashboard."""
        return self.function.__name__

    def __call__(self, item: Item) -> tuple[Result, dict[str, float]]:
        result = self.function(item)
        with _lock:  # clear the counts, so that several threads return each count once
            counts = {name: float(amount) for name, amount in _counts.items()}
            _counts.clear()
        return result, counts


@dataclass
class RunMetrics:
    """Metrics of a run; available after its block has ended."""

    metrics: dict[str, Any] = field(default_factory=dict)


@contextmanager
def collect_metrics() -> Iterator[RunMetrics]:
    """Collect the metrics of the block.

    - :data:`COUNTS`; ``pairs``, ``pairs_per_second`` and the metrics of the model are None if no pairs were generated.
    - ``seconds``: duration of the block.
    - ``stages``: done, total and unit by name of the stage.
    - ``model_busy_share``: time in the model divided by ``seconds``; above 1 with several workers.
    - ``gpu_busy_share``: mean GPU utilisation reported by the driver; None without CUDA or nvidia-ml-py.
    """
    run = RunMetrics()
    with _lock:
        before, outer = Counter(_counts), dict(_stages)
        _stages.clear()
    started = time.perf_counter()
    with _gpu_samples() as samples:
        try:
            yield run
        finally:
            seconds = time.perf_counter() - started
            with _lock:
                counts = {name: _counts[name] - before[name] for name in COUNTS}
                stages = {name: dict(zip(("done", "total", "unit"), at, strict=True)) for name, at in _stages.items()}
                _stages.update(outer | _stages)  # stages of a subflow belong to the parent flow as well
            pairs, model_seconds = counts[PAIRS] or None, counts[MODEL_SECONDS] or None
            run.metrics = {name: round(amount, 3) for name, amount in counts.items()} | {
                "seconds": round(seconds, 3),
                "pairs": pairs,
                "pairs_per_second": pairs and round(pairs / seconds, 3),
                "model_seconds": model_seconds and round(model_seconds, 3),
                "model_busy_share": model_seconds and round(model_seconds / seconds, 3),
                "gpu_busy_share": round(fmean(samples) / 100, 3) if samples else None,
                "stages": stages,
            }


@contextmanager
def _gpu_samples() -> Iterator[list[int]]:
    """Sample the utilisation of this process's CUDA device in per cent every 5 s; an empty list without a device."""
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        import torch

        while torch.cuda.is_available() and not ended.wait(_GPU_SAMPLE_SECONDS):
            try:
                samples.append(int(torch.cuda.utilization()))
            except Exception:  # nvidia-ml-py is not installed, or does not support this device
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
