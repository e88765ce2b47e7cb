"""Counts of work: in this process, in workers, in flows within flows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.runtime.clusters import ClusterConfig, run_each
from tasks.runtime.progress import reporter
from tasks.runtime.run_metrics import COUNTS, PAIRS, Counted, collect_metrics, count, model_time, record_stage
from tasks.stores.io.filesystem import create_bytes, read_bytes, write_bytes


def worked(amount: int) -> int:
    """What a worker of a cluster does."""
    count(PAIRS, amount)
    return -amount


def test_counts_of_the_block_alone() -> None:
    count(PAIRS, 5)
    with collect_metrics() as run:
        count(PAIRS, 2)
        count(PAIRS, 3)
    assert run.metrics["pairs"] == 5
    assert run.metrics["pairs_per_second"] > 0
    assert set(COUNTS) <= set(run.metrics)


def test_a_block_within_a_block_belongs_to_both() -> None:
    with collect_metrics() as outer:
        count(PAIRS)
        record_stage("first", 1, 2, "things")
        with collect_metrics() as inner:
            count(PAIRS)
            record_stage("second", 3, 4, "pairs")
        record_stage("first", 2, 2, "things")
    assert (outer.metrics["pairs"], inner.metrics["pairs"]) == (2, 1)
    assert set(inner.metrics["stages"]) == {"second"}
    assert outer.metrics["stages"]["first"] == {"done": 2, "total": 2, "unit": "things"}
    assert outer.metrics["stages"]["second"]["done"] == 3


def test_figures_are_there_after_an_error() -> None:
    def broken() -> None:
        count(PAIRS)
        raise RuntimeError

    with pytest.raises(RuntimeError), collect_metrics() as run:
        broken()
    assert run.metrics["pairs"] == 1


def test_bytes_of_files_are_counted(tmp_path: Path) -> None:
    with collect_metrics() as run:
        write_bytes(str(tmp_path / "a"), b"12345")
        assert create_bytes(str(tmp_path / "b"), b"123")
        assert not create_bytes(str(tmp_path / "b"), b"4567")
        read_bytes(str(tmp_path / "a"))
    assert (run.metrics["bytes_written"], run.metrics["bytes_read"]) == (8, 5)


def test_progress_is_kept_as_stages() -> None:
    with collect_metrics() as run:
        tell = reporter("cut", "patches")
        tell(1, 9)
        tell(9, 9)
    assert run.metrics["stages"] == {"cut": {"done": 9, "total": 9, "unit": "patches"}}


def test_time_in_the_model_is_a_share_of_the_run() -> None:
    with collect_metrics() as run:
        with model_time():
            time.sleep(0.02)
        time.sleep(0.02)
    metrics = run.metrics
    assert 0.02 <= metrics["model_seconds"] < metrics["seconds"]
    assert metrics["model_busy_share"] == pytest.approx(metrics["model_seconds"] / metrics["seconds"], abs=2e-2)
    assert metrics["gpu_busy_share"] is None


def test_what_was_not_done_has_no_figure() -> None:
    with collect_metrics() as run:
        pass
    assert run.metrics["pairs"] is None
    assert run.metrics["pairs_per_second"] is None
    assert run.metrics["model_busy_share"] is None


def test_a_name_that_nobody_shows_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown counter 'pears'"):
        count("pears")


@pytest.mark.parametrize("config", [ClusterConfig(kind="inline"), ClusterConfig(kind="local", workers=2)])
def test_counts_of_workers_are_added_once(config: ClusterConfig, tmp_path: Path) -> None:
    files = {str(tmp_path / f"{k}"): k for k in range(1, 9)}
    for file, size in files.items():
        Path(file).write_bytes(b"x" * size)
    with collect_metrics() as run:
        found = dict(run_each(config, read_bytes, files))
    assert {file: len(content) for file, content in found.items()} == files
    assert run.metrics["bytes_read"] == 36


def test_threads_of_a_worker_tell_each_count_once() -> None:
    Counted(worked)(0)  # what was counted before is told now
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(Counted(worked), range(1, 50)))
    assert sum(counts.get("pairs", 0) for _, counts in told) == sum(range(1, 50))
