"""Clusters that a run starts itself: what can be known without SLURM and Kubernetes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from pngmodel.errors import UserError
from tasks.runtime.clusters import ClusterConfig, run_each
from tasks.runtime.parameters import load_cluster

CONFIGS = Path(__file__).parents[4] / "configs" / "clusters"


def test_the_slurm_file_makes_a_job_that_starts_a_worker_with_these_resources() -> None:
    from dask_jobqueue import SLURMCluster

    options = load_cluster(str(CONFIGS / "slurm.yaml")).options
    with SLURMCluster(**options, scheduler_options={"dashboard_address": "127.0.0.1:0"}) as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p cpu", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G", "#SBATCH -t 02:00:00"):
        assert line in script
    assert "distributed.cli.dask_worker" in script


def test_workers_are_needed() -> None:
    with pytest.raises(UserError, match="'slurm' requires the key 'workers'"):
        list(run_each(ClusterConfig(kind="slurm"), abs, [1]))


def test_an_option_that_the_cluster_does_not_know_is_named() -> None:
    config = ClusterConfig(kind="slurm", workers=1, options={"coers": 1, "cores": 1, "memory": "1GB"})
    with pytest.raises(UserError, match=r"'options'.*coers"):
        list(run_each(config, abs, [1]))


def test_kubernetes_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load_cluster(str(CONFIGS / "kubernetes.yaml"))
    whole = importlib.import_module

    def absent(name: str, package: str | None = None) -> object:
        if name.startswith("dask_kubernetes"):
            raise ImportError(name)
        return whole(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"pngnoise\[hpc\]"):
        list(run_each(ClusterConfig(kind="kubernetes", workers=1), abs, [1]))


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_what_was_not_run_says_so(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert "NOT RUN" in text
    assert yaml.safe_load(text)["kind"] == name
