"""Where shard tasks run: in this process, on a local Dask cluster, on one that is already there, or on one that a
batch system or Kubernetes starts for the run."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.configuration import load_yaml

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT_PER_WORKER = 4
_FIRST_WORKER = "120s"
_ANSWER = 10.0  # seconds
_STARTED = {"slurm": ("dask_jobqueue", "SLURMCluster"), "kubernetes": ("dask_kubernetes.operator", "KubeCluster")}


class ClusterConfig(BaseModel):
    """One file of configs/clusters/."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["inline", "local", "address", "slurm", "kubernetes"] = Field(
        "inline",
        description="inline: this process; local: a Dask cluster of processes; address: a running scheduler; "
        "slurm, kubernetes: a cluster started for the run (pip install pngnoise[hpc])",
    )
    workers: int | None = Field(None, ge=1, description="processes, default one per core; needed by slurm, kubernetes")
    address: str | None = Field(None, description="address: scheduler, e.g. tcp://scheduler:8786")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="slurm: arguments of dask_jobqueue.SLURMCluster (queue, cores, memory, walltime, ...); "
        "kubernetes: of dask_kubernetes.operator.KubeCluster (image, namespace, resources, ...)",
    )


def run_each(
    config: ClusterConfig, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Apply ``function`` to each item and yield (item, result) as they finish, in any order.

    Function and items travel to other processes: module-level functions, URIs and small dataclasses.
    An error of one item stops the run; finished items keep what they published.
    """
    if config.kind == "inline":
        for item in items:
            yield item, function(item)
        return
    if config.kind == "address" and not config.address:
        raise UserError("cluster: kind 'address' needs the key 'address', e.g. tcp://scheduler:8786")
    yield from _on_dask(config, function, items)


def _on_dask(
    config: ClusterConfig, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    waiting = iter(items)
    first = list(itertools.islice(waiting, 1))
    if not first:
        return  # a finished store is not worth a cluster
    waiting = itertools.chain(first, waiting)
    from distributed import Client, as_completed  # a second to import; inline runs need none of it

    # Prefect's logging shows every logger's INFO: a cluster's hundred lines would bury the run's own.
    logging.getLogger("distributed").setLevel(logging.ERROR)

    cluster = _cluster(config)
    try:
        with Client(cluster if cluster is not None else config.address) as client:
            _require_workers(client, config, function.__module__)
            limit = _IN_FLIGHT_PER_WORKER * max(1, len(client.scheduler_info()["workers"]))
            # pure=False: two equal items are two pieces of work.
            submitted = {client.submit(function, i, pure=False): i for i in itertools.islice(waiting, limit)}
            finished = as_completed(list(submitted))
            for future in finished:
                item = submitted.pop(future)
                result = _result(future, item, config)
                future.release()
                for following in itertools.islice(waiting, 1):
                    more = client.submit(function, following, pure=False)
                    submitted[more] = following
                    finished.add(more)
                yield item, result
    finally:
        if cluster is not None:
            cluster.close()


def _cluster(config: ClusterConfig) -> Any:
    """The cluster that this run starts and closes; None when it uses a running scheduler."""
    if config.kind == "address":
        _require_scheduler(str(config.address))
        return None
    if config.kind == "local":
        from dask.system import CPU_COUNT  # knows of container limits
        from distributed import LocalCluster

        return LocalCluster(
            n_workers=config.workers or CPU_COUNT,
            threads_per_worker=1,
            processes=True,
            silence_logs=logging.CRITICAL,  # what a task raises comes back with its traceback; logged it comes twice
            dashboard_address="127.0.0.1:0",
        )
    # An allow-list and not a class named in YAML: a configuration file must not decide which code runs.
    module, name = _STARTED[config.kind]
    try:
        started = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"cluster: kind '{config.kind}' needs {module} ({error}); pip install 'pngnoise[hpc]'"
        ) from None
    if config.workers is None:
        raise UserError(f"cluster: kind '{config.kind}' needs the key 'workers'")
    try:
        cluster = started(**config.options)
    except (TypeError, ValueError) as error:
        raise UserError(f"cluster: the key 'options' does not suit {module}.{name} ({error})") from None
    cluster.scale(config.workers)
    return cluster


def _require_workers(client: Any, config: ClusterConfig, module: str) -> None:
    """A worker takes work and can import ``module``, or a :class:`UserError`."""
    # Dask retries for ever what its workers cannot import, so this is asked first.
    probe = client.submit(importlib.import_module, module, pure=False)
    from distributed import wait

    try:
        wait(probe, timeout=_FIRST_WORKER)
    except TimeoutError:
        raise UserError(
            f"cluster: no worker of {config.address or config.kind} took work for {_FIRST_WORKER}"
        ) from None
    if probe.status == "error":
        raise UserError(
            f"cluster: the workers (kind {config.kind}) cannot import {module} ({probe.exception()}); "
            "install this version of pngnoise there"
        )


def _result(future: Any, item: object, config: ClusterConfig) -> Any:
    """What an item came to. A lost worker's items are done again by Dask; these errors are what it gives up on."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise UserError(
            f"cluster: workers died four times over {item!r:.300} ({error}); give workers more memory or look at that "
            "input, then run the same command again: what is already published is kept"
        ) from None
    except (CancelledError, OSError) as error:
        if future.status == "error":
            raise  # the function's own error
        # With futures waiting the loss cancels them; while a result is being fetched its connection breaks.
        raise UserError(
            f"cluster: the scheduler {config.address or config.kind} was lost ({error}); run the same command again: "
            "what is already published is kept"
        ) from None


def _require_scheduler(address: str) -> None:
    """A scheduler answers at ``address`` in good time, or a :class:`UserError`.

    distributed's own time-out covers the TCP connection only: for whatever accepts it and stays silent it has none.
    """
    from distributed.comm.core import connect

    async def ask() -> None:
        async with asyncio.timeout(_ANSWER):
            comm = await connect(address, timeout=_ANSWER)
            await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may run a loop of its own (notebooks)
            thread.submit(asyncio.run, ask()).result()
    except TimeoutError:
        raise UserError(f"cluster: no Dask scheduler answers at {address} (waited {_ANSWER:g} s)") from None
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"cluster: no Dask scheduler answers at {address} ({error})") from None


def load_cluster(name: str) -> ClusterConfig:
    """``inline``, ``local``, or the path of a YAML file of configs/clusters/."""
    if name in ("inline", "local"):
        return ClusterConfig(kind="inline" if name == "inline" else "local")
    return load_yaml(name, ClusterConfig)
