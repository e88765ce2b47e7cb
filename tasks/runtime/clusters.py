"""Where shard tasks run: in this process, on a local Dask cluster, on one that is already there, or on one that a
batch system or Kubernetes starts for the run."""

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
from tasks.runtime.configuration import load_yaml
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.run_metrics import Counted, add

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT_PER_WORKER = 4
_FIRST_WORKER = "120s"
_ANSWER = 10.0  # seconds
_START_IT = "start it, then run the same command again: what is already published is kept"
_ASK_AGAIN = 1.0  # seconds, for the number of workers
_STARTED = {"slurm": ("dask_jobqueue", "SLURMCluster"), "kubernetes": ("dask_kubernetes.operator", "KubeCluster")}


class Cluster(ABC):
    """Where work of one run is done; opened by :func:`open_cluster`."""

    inline: bool
    """Whether that is this very process."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """Workers there are now; more may join and some may leave."""

    @abstractmethod
    def run_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Apply ``function`` to each item and yield (item, result) as they finish, in any order.

        Function and items travel to other processes: module-level functions, URIs and small dataclasses.
        An error of one item stops the run; finished items keep what they published.
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
            return  # a finished store is not worth a cluster
        waiting = itertools.chain(first, waiting)
        client = self._connected(function.__module__)
        from distributed import as_completed

        def submit(item: Item) -> Any:
            # pure=False: two equal items are two pieces of work.
            return client.submit(Counted(function), item, pure=False, resources=self._config.resources or None)

        limit, asked = _IN_FLIGHT_PER_WORKER * self.workers, time.monotonic()
        submitted = {submit(item): item for item in itertools.islice(waiting, limit)}
        finished = as_completed(list(submitted))
        for future in finished:
            item = submitted.pop(future)
            result, counts = _result(future, item, self._config)
            add(counts)
            future.release()
            if time.monotonic() - asked > _ASK_AGAIN:  # workers that joined meanwhile need work, too
                limit, asked = _IN_FLIGHT_PER_WORKER * self.workers, time.monotonic()
            for following in itertools.islice(waiting, max(0, limit - len(submitted))):
                more = submit(following)
                submitted[more] = following
                finished.add(more)
            yield item, result

    def _connected(self, module: str) -> Any:
        """The client; the cluster is started, or its scheduler asked, when the first work comes."""
        from distributed import Client  # a second to import; inline runs need none of it

        if self._client is None:
            # Prefect's logging shows every logger's INFO: a cluster's hundred lines would bury the run's own.
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
    """The cluster that a configuration describes, for as long as the block lasts; started when it is first used.

    Raises:
        UserError: the configuration is incomplete, or no scheduler answers.
    """
    if config.kind == "inline":
        yield _Inline()
        return
    if config.kind == "address" and not config.address:
        raise UserError("cluster: kind 'address' needs the key 'address', e.g. tcp://scheduler:8786")
    cluster = _Dask(config)
    try:
        yield cluster
    finally:
        cluster.close()


def run_each(
    config: ClusterConfig, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """:meth:`Cluster.run_each` on a cluster of its own."""
    with open_cluster(config) as cluster:
        yield from cluster.run_each(function, items)


def _cluster(config: ClusterConfig) -> Any:
    """The cluster that this run starts and closes; None when it uses a running scheduler."""
    if config.kind == "address":
        _require_scheduler(str(config.address))
        return None
    if config.kind == "local":
        with _plain_malloc():
            return _local(config)
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


@contextmanager
def _plain_malloc() -> Iterator[None]:
    """Workers that start in this block allocate as other processes do.

    Dask's nannies have glibc give memory back at once (MALLOC_TRIM_THRESHOLD_), so that large tensors are new to the
    kernel every time: the shipped model took twice the CPU time.
    """
    import dask

    key = "distributed.nanny.pre-spawn-environ"
    kept = {name: value for name, value in dask.config.get(key).items() if name != "MALLOC_TRIM_THRESHOLD_"}
    with dask.config.set({key: kept}):
        yield


def _local(config: ClusterConfig) -> Any:
    from dask.system import CPU_COUNT  # knows of container limits
    from distributed import LocalCluster

    if config.gpus:
        return _gpu_workers(config.gpus, config.resources)
    return LocalCluster(
        resources=config.resources or None,
        n_workers=config.workers or CPU_COUNT,
        threads_per_worker=1,
        processes=True,
        silence_logs=logging.CRITICAL,  # what a task raises comes back with its traceback; logged it comes twice
        dashboard_address="127.0.0.1:0",
    )


def _gpu_workers(gpus: int, resources: dict[str, float]) -> Any:
    """One worker process per GPU; each sees its own as ``cuda``."""
    from distributed import Nanny, Scheduler, SpecCluster

    given = os.environ.get("CUDA_VISIBLE_DEVICES")  # what a batch system lets this run have
    devices = given.split(",") if given else [str(k) for k in range(gpus)]
    if len(devices) < gpus:
        raise UserError(f"cluster: key 'gpus' is {gpus}, CUDA_VISIBLE_DEVICES allows {given}; ask for fewer")
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
    """A worker takes work and can import ``module``, or a :class:`UserError`."""
    # Dask retries for ever what its workers cannot import, so this is asked first.
    probe = client.submit(importlib.import_module, module, pure=False, resources=config.resources or None)
    from distributed import wait

    try:
        wait(probe, timeout=_FIRST_WORKER)
    except TimeoutError:
        raise UserError(
            f"cluster: no worker of {config.address or config.kind} took work for {_FIRST_WORKER}"
            + (f"; they need the resources {config.resources}" if config.resources else "")
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
        raise TransientError(
            f"cluster: workers died four times over {item!r:.300} ({error}); give workers more memory or look at that "
            "input, then run the same command again: what is already published is kept"
        ) from None
    except (CancelledError, OSError) as error:
        if future.status == "error":
            raise  # the function's own error
        # With futures waiting the loss cancels them; while a result is being fetched its connection breaks.
        raise TransientError(
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
        raise UserError(
            f"cluster: no Dask scheduler answers at {address} (waited {_ANSWER:g} s); {_START_IT}"
        ) from None
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"cluster: no Dask scheduler answers at {address} ({error}); {_START_IT}") from None


def load_cluster(name: str) -> ClusterConfig:
    """``inline``, ``local``, or the path of a YAML file of configs/clusters/."""
    if name in ("inline", "local"):
        return ClusterConfig(kind="inline" if name == "inline" else "local")
    return load_yaml(name, ClusterConfig)
