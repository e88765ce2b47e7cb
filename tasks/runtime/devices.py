"""Processes and devices of a training: this process, processes that it spawns, or processes that torchrun started."""

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
    """Return whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_chief() -> bool:
    """Return whether this process has rank 0; only it records, reports and publishes."""
    return int(os.environ.get("RANK", "0")) == 0


def create_fabric(devices: Devices) -> Fabric:
    """Create a Fabric object for ``devices`` without launching it.

    Raises:
        UserError: A device does not exist, there are too few devices, or several machines have no launcher.
    """
    kind, _, index = devices.device.partition(":")
    several = devices.devices * devices.nodes > 1
    if not several or kind != "cuda":  # with several processes, this one must not initialise the first GPU
        Precision.best(devices.device)
    if several and index:
        raise UserError(
            f"device: {devices.device!r} is a single device, but {devices.devices * devices.nodes} are requested; "
            f"use device {kind!r}"
        )
    if kind == "cuda" and devices.devices > torch.cuda.device_count():
        raise UserError(
            f"devices: {devices.devices} requested, but this machine has {torch.cuda.device_count()} CUDA devices; "
            "request fewer"
        )
    if devices.nodes > 1 and not launched():
        raise UserError(
            f"nodes: {devices.nodes} machines require torchrun; start on each machine: "
            f"torchrun --no-python --nnodes {devices.nodes} --nproc-per-node {devices.devices} pngnoise train ..."
        )
    chosen: Any = [int(index)] if index else devices.devices
    # Spawn processes: Fabric's subprocess launcher would rerun the whole command, including the flow.
    strategy = ("ddp" if launched() else "ddp_spawn") if several else "auto"
    return Fabric(accelerator=kind, devices=chosen, num_nodes=devices.nodes, strategy=strategy)


def run_on(
    devices: Devices, task: Callable[[Fabric, Callable[[Any], None]], Any], report: Callable[[Any], None]
) -> Any:
    """Run ``task(fabric, report)`` in every process of ``devices`` and return the result of rank 0.

    Args:
        devices: Devices to use.
        task: A module-level function, or a partial of one, because it may run in spawned processes.
        report: Called in this process with every picklable object that rank 0 reports.

    Raises:
        UserError: See :func:`create_fabric`; also if torchrun started another number of processes, or a process
            raised it.
    """
    fabric = create_fabric(devices)
    processes = devices.devices * devices.nodes
    if launched() and int(os.environ["WORLD_SIZE"]) != processes:
        raise UserError(
            f"devices: torchrun started {os.environ['WORLD_SIZE']} processes, but devices x nodes is {processes}; "
            "make them equal"
        )
    if processes == 1 or launched():
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

    # Copy the context of this thread, so that the log finds the flow run.
    reader = threading.Thread(target=contextvars.copy_context().run, args=(forward,), daemon=True)
    reader.start()
    try:
        finished: _Finished = fabric.launch(_in_process, task, queue)  # type: ignore[arg-type]
        return finished.result
    except (ProcessRaisedException, ProcessExitedException):
        queue.put(None)
        reader.join()
        if failed:  # raise the error itself instead of the traceback of another process
            raise failed[0] from None
        raise
    finally:
        if reader.is_alive():
            queue.put(None)
            reader.join()


class _Finished:
    """Wraps a result, because Fabric would traverse a dataclass to look for tensors."""

    def __init__(self, result: Any) -> None:
        self.result = result


def _in_process(fabric: Fabric, task: Callable[[Fabric, Callable[[Any], None]], Any], queue: Any) -> _Finished:
    try:
        return _Finished(task(fabric, queue.put if fabric.global_rank == 0 else _silent))
    except UserError as error:
        queue.put(error)
        raise  # terminates the other processes, which may be waiting for this one


def _silent(item: Any) -> None:
    pass
