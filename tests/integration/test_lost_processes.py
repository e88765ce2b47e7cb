"""Extraction on a real Dask cluster of processes that are killed: the store comes out as if nothing had happened."""

from __future__ import annotations

import json
import operator
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL

from pngmodel.errors import UserError
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import ingest
from tasks.runtime.clusters import ClusterConfig, run_each
from tests.servers import PROGRAMS, Dask, wait_until

PNGNOISE = PROGRAMS / "pngnoise"
Tree = Callable[[Any], dict[str, bytes]]
SIZE, SHARD, PAIRS = 64, 4, 12
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    cluster = Dask(tmp_path / "dask", dict(os.environ))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def many(tmp_path: Path, pair: Callable, save: Callable) -> str:
    """The catalogue of a dozen pairs, large enough that a run can be met in its middle."""
    rng = np.random.default_rng(0)
    for k in range(PAIRS):
        noisy, clean = pair(k, 256, 256)
        texture = rng.integers(0, 3, clean.shape, dtype=np.uint8)
        save(tmp_path / "data" / "noisy" / f"{k:02d}.png", noisy + texture)
        save(tmp_path / "data" / "clean" / f"{k:02d}.png", clean)
    ingest(str(tmp_path / "data"), "folders", str(tmp_path / "catalogue"))
    return str(tmp_path / "catalogue")


@pytest.fixture
def undisturbed(many: str, tmp_path: Path, tree: Tree) -> dict[str, bytes]:
    extract_patches(many, str(tmp_path / "whole"), geometry=Geometry(size=SIZE), shard=SHARD)
    return tree(tmp_path / "whole")


def parts(output: Path) -> int:
    return len(list(output.glob("parts/*.parquet")))


def start(many: str, output: Path, *more: str) -> subprocess.Popen[str]:
    """`pngnoise patches` in a process and session of its own."""
    kept = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    sizes = ["--size", str(SIZE), "--shard", str(SHARD)]
    return subprocess.Popen(
        [PNGNOISE, "patches", many, "--output", str(output), *sizes, "--json", *more],
        cwd=output.parent,
        env=kept | {"PREFECT_HOME": str(output.parent / ".prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_worker_is_not_noticed_in_the_store(
    dask: Dask, many: str, undisturbed: dict[str, bytes], tmp_path: Path, tree: Tree
) -> None:
    running = start(many, tmp_path / "store", "--cluster", dask.cluster)
    wait_until(lambda: parts(tmp_path / "store") >= 3, 120)
    dask.lose(0)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert tree(tmp_path / "store") == undisturbed


def test_a_killed_scheduler_ends_the_run_in_words_and_the_rerun_finishes_it(
    dask: Dask, many: str, undisturbed: dict[str, bytes], tmp_path: Path, tree: Tree
) -> None:
    running = start(many, tmp_path / "store", "--cluster", dask.cluster)
    wait_until(lambda: parts(tmp_path / "store") >= 3, 120)
    dask.kill_scheduler()
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 2, errors
    assert "run the same command again" in errors
    assert not (tmp_path / "store" / "store.json").exists()
    kept = parts(tmp_path / "store")
    again = extract_patches(many, str(tmp_path / "store"), geometry=Geometry(size=SIZE), shard=SHARD)
    assert again["made"] <= again["shards"] - kept
    assert tree(tmp_path / "store") == undisturbed


def test_a_scheduler_killed_while_results_are_fetched_ends_the_run_in_words(dask: Dask) -> None:
    results = run_each(ClusterConfig(kind="address", address=dask.address), operator.neg, range(100_000))
    next(results)
    killer = threading.Timer(0.2, dask.kill_scheduler)
    killer.start()
    with pytest.raises(UserError, match="run the same command again"):
        list(results)
    killer.join()


def test_a_killed_flow_is_finished_by_the_same_command(
    many: str, undisturbed: dict[str, bytes], tmp_path: Path, tree: Tree
) -> None:
    running = start(many, tmp_path / "store", "--cluster", "inline")
    wait_until(lambda: parts(tmp_path / "store") >= 3, 120)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / "store" / "store.json").exists()
    again = start(many, tmp_path / "store", "--cluster", "local")
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert 0 < json.loads(out)["made"] < json.loads(out)["shards"]
    assert tree(tmp_path / "store") == undisturbed
