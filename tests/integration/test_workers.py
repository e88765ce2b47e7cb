"""Workers of clusters: what they must have, those that come later, one per GPU."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster, get_worker

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.maintenance import verify_corpus
from tasks.corpus.plan import CorpusParameters
from tasks.runtime import clusters
from tasks.runtime.clusters import ClusterConfig, open_cluster, run_each

HAVE, LACK = {"NOISE": 1.0}, {"OTHER": 1.0}


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Workers import the functions of this file, which is no part of the installed package; they get this sys.path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])
        yield


@pytest.fixture(scope="module")
def cluster(importable: None) -> Iterator[LocalCluster]:
    """A cluster with one worker that has a resource, and one that has not."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", resources=HAVE) as local:
        plain = local.new_worker_spec()
        for specification in plain.values():
            specification["options"] = specification["options"] | {"resources": LACK}
        local.worker_spec.update(plain)
        local.sync(local._correct_state)
        local.wait_for_workers(2, timeout=60)
        yield local


def who(item: int) -> tuple[str, dict[str, float]]:
    """Which worker this is and what it has."""
    time.sleep(0.05)
    worker = get_worker()
    return str(worker.address), dict(worker.state.total_resources)


def visible(item: int) -> str | None:
    time.sleep(0.2)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_only_workers_with_the_resources_get_work(cluster: LocalCluster) -> None:
    anywhere = ClusterConfig(kind="address", address=cluster.scheduler_address)
    assert len({worker for _, (worker, _) in run_each(anywhere, who, range(12))}) == 2
    only = anywhere.model_copy(update={"resources": HAVE})
    found = [worker for _, worker in run_each(only, who, range(12))]
    assert len(found) == 12
    assert {address for address, _ in found} == {found[0][0]}
    assert found[0][1] == HAVE


def test_resources_that_no_worker_has_are_named(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_FIRST_WORKER", "1s")
    asked = ClusterConfig(kind="address", address=cluster.scheduler_address, resources={"GPU": 1})
    with pytest.raises(UserError, match=r"no worker of tcp:.* within 1s; start workers with the resources \{'GPU': 1"):
        list(run_each(asked, operator.neg, [1]))


def test_a_worker_that_joins_gets_its_share() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local:
        found: list[str] = []
        deadline = time.monotonic() + 90

        def until_both_have_worked() -> Iterator[int]:  # a new process needs seconds to import what it works with
            while len(set(found)) < 2 and time.monotonic() < deadline:
                yield 0
            yield from range(60)

        there = ClusterConfig(kind="address", address=local.scheduler_address)
        for _, (worker, _) in run_each(there, who, until_both_have_worked()):
            found.append(worker)
            if len(found) == 5:
                local.scale(2)
        first = found[0]
        assert set(found[:5]) == {first}
        assert 15 < sum(worker != first for worker in found[-40:]) < 25


def test_each_gpu_has_a_worker_that_sees_no_other() -> None:
    config = ClusterConfig(kind="local", gpus=2, resources=HAVE)
    with open_cluster(config) as opened:
        assert {seen for _, seen in opened.run_each(visible, range(8))} == {"0", "1"}
        assert opened.workers == 2
        assert {str(has) for _, (_, has) in opened.run_each(who, range(4))} == {str(HAVE)}


def test_a_corpus_is_verified_on_workers(
    cluster: LocalCluster,
    made: Callable[[CorpusParameters], Any],
    patches: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    locations = {"output": str(tmp_path / "c"), "references": patches, "clean": str(folders[0] / "clean")}
    published, _ = made(CorpusParameters(model="heteroscedastic", crop=32, shard=2, **locations))
    there = ClusterConfig(kind="address", address=cluster.scheduler_address)
    with open_cluster(there) as opened:
        found = verify_corpus(published.url, opened)
        assert (found["verified"], found["digest"], found["shards"]) == (True, published.digest, 18)
        for k in (3, 17):
            (tmp_path / "c" / "noisy" / "c" / "0" / str(k) / "0" / "0" / "0").unlink()
        with pytest.raises(IntegrityError, match=r"2 problems.*noisy/c/0/17/0/0/0: missing; .*noisy/c/0/3/0/0/0: miss"):
            verify_corpus(published.url, opened)
