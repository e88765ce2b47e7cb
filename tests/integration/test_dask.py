"""Real Dask clusters of processes make the same bytes as this process."""

from __future__ import annotations

import importlib
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from pngmodel.errors import UserError
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.formats.image_file import read_image
from tasks.runtime.clusters import ClusterConfig, run_each

Tree = Callable[[Any], dict[str, bytes]]
INLINE = ClusterConfig(kind="inline")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[ClusterConfig]:
    """A cluster that was there before."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield ClusterConfig(kind="address", address=cluster.scheduler_address)


def corpus(output: Path, clean: Path, references: str, cluster: ClusterConfig) -> dict[str, int]:
    parameters = CorpusParameters(
        output=str(output),
        model="heteroscedastic",
        references=references,
        clean=str(clean),
        crop=32,
        shard=8,
        cluster=cluster,
    )
    return make_corpus_shards(plan_corpus(parameters))


def test_a_local_cluster_makes_the_same_bytes(
    catalogue: str, patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Tree
) -> None:
    local = ClusterConfig(kind="local", workers=2)
    result = extract_patches(catalogue, str(tmp_path / "p"), geometry=Geometry(size=32), shard=8, cluster=local)
    assert result["made"] == 8
    assert tree(tmp_path / "p") == tree(patches)
    for name, cluster in (("a", INLINE), ("b", local)):
        assert corpus(tmp_path / name, folders[0] / "clean", patches, cluster) == {"made": 5, "kept": 0}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_running_scheduler_makes_the_same_bytes(
    scheduler: ClusterConfig, patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Tree
) -> None:
    for name, cluster in (("a", INLINE), ("b", scheduler)):
        corpus(tmp_path / name, folders[0] / "clean", patches, cluster)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_workers_that_live_longer_than_the_data_do_not_mix_it_up(
    scheduler: ClusterConfig,
    patches: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    tree: Tree,
    pair: Callable,
    save: Callable,
) -> None:
    clean = folders[0] / "clean"
    corpus(tmp_path / "before", clean, patches, scheduler)
    save(clean / "a_new_first_one.png", pair(40)[1])
    for name, cluster in (("a", scheduler), ("b", INLINE)):
        corpus(tmp_path / name, clean, patches, cluster)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "before")


def test_local_workers_keep_their_memory_between_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # Dask's own clusters leave it in this process
    local = ClusterConfig(kind="local", workers=1)
    assert list(run_each(local, os.getenv, ["MALLOC_TRIM_THRESHOLD_"])) == [("MALLOC_TRIM_THRESHOLD_", None)]


def test_more_items_than_are_in_flight_all_come_back(scheduler: ClusterConfig) -> None:
    assert sorted(run_each(scheduler, operator.neg, range(40))) == [(i, -i) for i in range(40)]


def test_the_error_of_one_item_surfaces_and_the_scheduler_stays(scheduler: ClusterConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        list(run_each(scheduler, read_image, [str(tmp_path / "gone.png")] * 3))
    assert list(run_each(scheduler, operator.neg, [7])) == [(7, -7)]


def test_a_user_error_on_a_local_cluster_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    missing = str(tmp_path / "none.png")
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        list(run_each(ClusterConfig(kind="local", workers=1), read_image, [missing]))
    assert "Traceback" not in capfd.readouterr().err


def test_workers_without_the_code_are_an_error_and_no_endless_wait(
    scheduler: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("only_here").double
    with pytest.raises(UserError, match=r"cannot import only_here.*install"):
        list(run_each(scheduler, function, [1]))
