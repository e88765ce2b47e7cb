"""Clusters that run shard tasks: this process, a local Dask cluster, a running Dask scheduler, or a Dask cluster that
SLURM or Kubernetes starts for the run."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from pngmodel.errors import TransientError, UserError
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.run_metrics import Counted, add_counts

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT_PER_WORKER = 4
_FIRST_WORKER = "120s"
_CONNECT_SECONDS = 10.0
_RESUME = "run the same command again: it keeps what is already published"
_COUNT_WORKERS_SECONDS = 1.0
_CLUSTER_CLASSES = {
    "slurm": ("dask_jobqueue", "SLURMCluster"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster"),
}


class Cluster(ABC):
    """Executes the tasks of one run; opened by :func:`open_cluster`."""

    inline: bool
    """Whether tasks run in this process."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """Current number of workers; workers may join or leave during the run."""

    @abstractmethod
    def run_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Apply ``function`` to each item and yield (item, result) in order of completion.

        Function and items are pickled for other processes: use module-level functions, URLs and small dataclasses.
        An error of one item stops the run; results that other items have published are kept.
        """


class _Inline(Cluster):
    inline = True
    workers = 1

    def run_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        for item in items:
            yield item, function(item)


class _Dask(Cluster):
    inline = False

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._cluster: Any = None
        self._client: Any = None

    @property
    def workers(self) -> int:
        return max(1, len(self._client.scheduler_info()["workers"])) if self._client else self._config.workers or 1

    def run_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        waiting = iter(items)
        first = list(itertools.islice(waiting, 1))
        if not first:
            return  # nothing to do: do not start a cluster
        waiting = itertools.chain(first, waiting)
        client = self._connected(function.__module__)
        from distributed import as_completed

        def submit(item: Item) -> Any:
            # pure=False: run equal items separately
            return client.submit(Counted(function), item, pure=False, resources=self._config.resources or None)

        limit, counted = _IN_FLIGHT_PER_WORKER * self.workers, time.monotonic()
        submitted = {submit(item): item for item in itertools.islice(waiting, limit)}
        finished = as_completed(list(submitted))
        for future in finished:
            item = submitted.pop(future)
            result, counts = _result(future, item, self._config)
            add_counts(counts)
            future.release()
            if time.monotonic() - counted > _COUNT_WORKERS_SECONDS:  # submit more items if workers have joined
                limit, counted = _IN_FLIGHT_PER_WORKER * self.workers, time.monotonic()
            for following in itertools.islice(waiting, max(0, limit - len(submitted))):
                more = submit(following)
                submitted[more] = following
                finished.add(more)
            yield item, result

    def _connected(self, module: str) -> Any:
        """Return the client. The first call starts the cluster or connects to its scheduler."""
        from distributed import Client  # takes a second to import, and inline runs do not need it

        if self._client is None:
            # Prefect shows INFO messages of all loggers; those of Dask would bury the messages of the run.
            logging.getLogger("distributed").setLevel(logging.ERROR)
            self._cluster = _cluster(self._config)
            self._client = Client(self._cluster if self._cluster is not None else self._config.address)
        _require_workers(self._client, self._config, module)
        return self._client

    def close(self) -> None:
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()


@contextmanager
def open_cluster(config: ClusterConfig) -> Iterator[Cluster]:
    """Open the cluster that a configuration describes. It starts on first use and closes at the end of the block.

    Raises:
        UserError: The configuration is incomplete, or the scheduler does not answer.
    """
    if config.kind == "inline":
        yield _Inline()
        return
    if config.kind == "address" and not config.address:
        raise UserError("cluster: kind 'address' requires the key 'address', e.g. tcp://scheduler:8786")
    cluster = _Dask(config)
    try:
        yield cluster
    finally:
        cluster.close()


def run_each(
    config: ClusterConfig, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Run :meth:`Cluster.run_each` on a cluster opened for this call."""
    with open_cluster(config) as cluster:
        yield from cluster.run_each(function, items)


def _cluster(config: ClusterConfig) -> Any:
    """Start the cluster of this run; None if the run uses a running scheduler."""
    if config.kind == "address":
        _require_scheduler(str(config.address))
        return None
    if config.kind == "local":
        with _plain_malloc():
            return _local(config)
    # An allow-list instead of a class name in YAML: a configuration file must not choose which code runs.
    module, name = _CLUSTER_CLASSES[config.kind]
    try:
        started = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(
            f"cluster: kind '{config.kind}' requires the package {module} ({error}); run pip install 'pngnoise[hpc]'"
        ) from None
    if config.workers is None:
        raise UserError(f"cluster: kind '{config.kind}' requires the key 'workers', the number of workers to start")
    try:
        cluster = started(**config.options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"cluster: {module}.{name} rejects the key 'options' ({error}); give only arguments of that class"
        ) from None
    cluster.scale(config.workers)
    return cluster


@contextmanager
def _plain_malloc() -> Iterator[None]:
    """Start the workers of this block with glibc's default memory trimming.

    Dask's nannies set MALLOC_TRIM_THRESHOLD_ so that glibc returns freed memory immediately. The kernel then maps new
    pages for every large tensor, which doubled the CPU time of the shipped model.
    """
    import dask

    key = "distributed.nanny.pre-spawn-environ"
    kept = {name: value for name, value in dask.config.get(key).items() if name != "MALLOC_TRIM_THRESHOLD_"}
    with dask.config.set({key: kept}):
        yield


def _local(config: ClusterConfig) -> Any:
    from dask.system import CPU_COUNT  # respects container limits
    from distributed import LocalCluster

    if config.gpus:
        return _gpu_workers(config.gpus, config.resources)
    return LocalCluster(
        resources=config.resources or None,
        n_workers=config.workers or CPU_COUNT,
        threads_per_worker=1,
        processes=True,
        silence_logs=logging.CRITICAL,  # exceptions of tasks are raised in the client; do not log them as well
        dashboard_address="127.0.0.1:0",
    )


def _gpu_workers(gpus: int, resources: dict[str, float]) -> Any:
    """Start one worker process per GPU. Each sees only its own GPU, as ``cuda``."""
    from distributed import Nanny, Scheduler, SpecCluster

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # set by a batch system for this run
    devices = visible.split(",") if visible else [str(k) for k in range(gpus)]
    if len(devices) < gpus:
        raise UserError(
            f"cluster: key 'gpus' is {gpus}, but CUDA_VISIBLE_DEVICES={visible} allows {len(devices)}; "
            f"set 'gpus' to {len(devices)} or less"
        )
    workers = {
        k: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "env": {"CUDA_VISIBLE_DEVICES": devices[k]},
                "resources": resources,
                "silence_logs": logging.CRITICAL,
            },
        }
        for k in range(gpus)
    }
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": local})


def _require_workers(client: Any, config: ClusterConfig, module: str) -> None:
    """Check that a worker accepts tasks and can import ``module``; raise :class:`UserError` otherwise."""
    # Dask retries tasks that its workers cannot import without limit, so check this first.
    probe = client.submit(importlib.import_module, module, pure=False, resources=config.resources or None)
    from distributed import wait

    try:
        wait(probe, timeout=_FIRST_WORKER)
    except TimeoutError:
        raise UserError(
            f"cluster: no worker of {config.address or config.kind} accepted a task within {_FIRST_WORKER}; "
            + (f"start workers with the resources {config.resources}" if config.resources else "start workers")
        ) from None
    if probe.status == "error":
        raise UserError(
            f"cluster: the workers (kind {config.kind}) cannot import {module} ({probe.exception()}); "
            "install this version of pngnoise on the workers"
        )


def _result(future: Any, item: object, config: ClusterConfig) -> Any:
    """Return the result of an item. Dask reruns the items of lost workers; raise :class:`TransientError` if it gives
    up or the scheduler is lost."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise TransientError(
            f"cluster: four workers died while processing {item!r:.300} ({error}); give workers more memory or check "
            f"that input, then {_RESUME}"
        ) from None
    except (CancelledError, OSError) as error:
        if future.status == "error":
            raise  # error raised by the function itself
        # Losing the scheduler cancels waiting futures (CancelledError) and breaks transfers of results (OSError).
        raise TransientError(
            f"cluster: lost the connection to the scheduler {config.address or config.kind} ({error}); {_RESUME}"
        ) from None


def _require_scheduler(address: str) -> None:
    """Check that a scheduler answers at ``address`` within 10 s; raise :class:`UserError` otherwise.

    The timeout of ``distributed`` covers only the TCP connection, not a server that accepts it and never answers.
    """
    from distributed.comm.core import connect

    async def probe() -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            comm = await connect(address, timeout=_CONNECT_SECONDS)
            await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may already run an event loop (notebooks)
            thread.submit(asyncio.run, probe()).result()
    except TimeoutError:
        raise UserError(
            f"cluster: no Dask scheduler answers at {address} (waited {_CONNECT_SECONDS:g} s); start it, then {_RESUME}"
        ) from None
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"cluster: no Dask scheduler answers at {address} ({error}); start it, then {_RESUME}"
        ) from None
