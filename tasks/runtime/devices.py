"""Where a training runs: one process, several that this one starts, or processes that a launcher started."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from pngmodel.errors import UserError
from pngmodel.network.model import Precision
from tasks.runtime.parameters import Devices


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_chief() -> bool:
    """Whether this process is the one that records, reports and publishes."""
    return int(os.environ.get("RANK", "0")) == 0


def fabric_of(devices: Devices) -> Fabric:
    """Fabric for these devices, not launched yet.

    Raises:
        UserError: no such device, fewer than wanted, or several machines without a launcher.
    """
    kind, _, index = devices.device.partition(":")
    several = devices.devices * devices.nodes > 1
    if not several or kind != "cuda":  # several processes: none of them may take the first device
        Precision.best(devices.device)
    if several and index:
        raise UserError(f"device {devices.device!r} is one device; give {kind!r} with {devices.devices} devices")
    if kind == "cuda" and devices.devices > torch.cuda.device_count():
        raise UserError(f"devices: {devices.devices} wanted, this machine has {torch.cuda.device_count()}")
    if devices.nodes > 1 and not launched():
        raise UserError(
            f"nodes: {devices.nodes} machines need a launcher on each, e.g. "
            f"torchrun --no-python --nnodes {devices.nodes} --nproc-per-node {devices.devices} pngnoise train ..."
        )
    chosen: Any = [int(index)] if index else devices.devices
    # Spawned processes, because a launcher of its own would run the whole command again, flow and all.
    strategy = ("ddp" if launched() else "ddp_spawn") if several else "auto"
    return Fabric(accelerator=kind, devices=chosen, num_nodes=devices.nodes, strategy=strategy)


def run_on(
    devices: Devices, task: Callable[[Fabric, Callable[[Any], None]], Any], report: Callable[[Any], None]
) -> Any:
    """Run ``work(fabric, report)`` in every process of ``devices``; returns what the chief's returned.

    ``task`` must be importable by name (or a partial of such), what it reports must be picklable: it may run in a
    process of its own.
    """
    fabric = fabric_of(devices)
    wanted = devices.devices * devices.nodes
    if launched() and int(os.environ["WORLD_SIZE"]) != wanted:
        raise UserError(
            f"the launcher started {os.environ['WORLD_SIZE']} processes, devices x nodes is {wanted}; make them equal"
        )
    if wanted == 1 or launched():
        fabric.launch()
        return task(fabric, report)
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    failed: list[Exception] = []

    def forward() -> None:
        while (item := queue.get()) is not None:
            if isinstance(item, Exception):
                failed.append(item)
            else:
                report(item)

    # With the context of this thread, in which a flow's log knows its run.
    reader = threading.Thread(target=contextvars.copy_context().run, args=(forward,), daemon=True)
    reader.start()
    try:
        finished: _Finished = fabric.launch(_in_process, task, queue)  # type: ignore[arg-type]
        return finished.result
    except (ProcessRaisedException, ProcessExitedException):
        queue.put(None)
        reader.join()
        if failed:  # in words, not as another process's traceback
            raise failed[0] from None
        raise
    finally:
        if reader.is_alive():
            queue.put(None)
            reader.join()


class _Finished:
    """A result on its way back: Fabric would take a dataclass to pieces to look for tensors."""

    def __init__(self, result: Any) -> None:
        self.result = result


def _in_process(fabric: Fabric, task: Callable[[Fabric, Callable[[Any], None]], Any], queue: Any) -> _Finished:
    try:
        return _Finished(task(fabric, queue.put if fabric.global_rank == 0 else _silent))
    except UserError as error:
        queue.put(error)
        raise  # the others may be waiting for this process, and are ended by that


def _silent(item: Any) -> None:
    pass
