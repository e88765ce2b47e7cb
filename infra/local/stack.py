"""Start the processes of the local stack in order, and stop them."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from infra.local.processes import ProcessRegistry, StackProcess, kill, terminate
from infra.local.settings import StackSettings
from infra.local.storage import make_bucket, server_command, server_environment
from pngmodel.errors import UserError

S3, SERVER = "s3", "prefect-server"
_PROGRAMS = Path(sys.executable).parent
_START_SECONDS = 120.0
_RUN_SECONDS, _STOP_SECONDS = 20.0, 15.0
Log = Callable[[str], None]


class Stack:
    """A local stack in a folder."""

    def __init__(self, settings: StackSettings, log: Log = print) -> None:
        self.settings, self._log = settings, log
        self.registry = ProcessRegistry(settings.stack.absolute())
        self.environment = settings.environment()

    @property
    def workers(self) -> dict[str, tuple[str, int]]:
        """Worker name -> pool and maximum number of concurrent runs. A gpu worker runs one at a time, on one device."""
        gpus = {f"worker-gpu-{k}": ("gpu", 1) for k in range(self.settings.gpu_slots)}
        return {"worker-cpu": ("cpu", self.settings.cpu_slots)} | gpus

    def up(self) -> None:
        """Start all processes that are not running, deploy infra/, and create the sample data.

        Raises:
            UserError: A port is in use, or a process does not start. Processes already running are kept.
        """
        for file in (self.settings.deployments, self.settings.automations):
            if not file.is_file():
                raise UserError(f"{file}: file not found; run this command in the folder of the checkout")
        with self._exclusive():
            self._up()

    def _up(self) -> None:
        if self.settings.own_storage:
            folder = self.registry.folder / S3
            self._start_server(
                S3,
                lambda: server_command(folder),
                self.environment | server_environment(folder, self.settings.s3_port),
                self.settings.s3_port,
                self.settings.endpoint,
                "PNGNOISE_S3_PORT",
            )
            make_bucket(self.settings.storage, self.environment)
        if self.settings.own_server:
            port = self.settings.prefect_port
            command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            self._start_server(
                SERVER,
                lambda: [str(_PROGRAMS / command[0]), *command[1:]],
                self.environment,
                port,
                f"{self.settings.api}/health",
                "PNGNOISE_PREFECT_PORT",
            )
        with ThreadPoolExecutor(1) as background:  # both take about 15 s, mostly in a single process
            samples = background.submit(self._create_sample_data)
            self._log("deploying infra/ ...")
            files = ["--file", str(self.settings.deployments), "--automations", str(self.settings.automations)]
            self._run_cli("deploy", *files, PNGNOISE_CPU_SLOTS=str(self.settings.cpu_slots))
            self._terminate_orphans()
            for name in self.workers:
                self._start_worker(name)
            samples.result()

    def status(self) -> dict[str, Any]:
        """Return the state of all processes, and the addresses."""
        running = {
            entry.name: f"process {entry.pid}" if self.registry.process(entry) else "EXITED"
            for entry in self.registry.entries()
        }
        addresses = {"prefect": self.environment["PREFECT_API_URL"].removesuffix("/api")}
        if self.settings.storage.startswith("s3://") and self.settings.endpoint:
            addresses["s3"] = self.settings.endpoint
        return {
            "folder": str(self.registry.folder),
            "processes": running,
            "addresses": addresses,
            "storage": self.settings.storage,
        }

    def down(self) -> list[str]:
        """Stop all processes of the stack, flow runs first so that they can report it; returns the names."""
        with self._exclusive():
            started = self.registry.entries()
            alive = {entry.name: process for entry in started if (process := self.registry.process(entry))}
            servers = [name for name in (S3, SERVER) if name in alive]
            workers = [process for name, process in alive.items() if name not in servers]
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.suspend()  # otherwise it would start another run
            terminate(self.registry.flow_runs(), _RUN_SECONDS)
            for group in (workers, *([alive[name]] for name in servers)):
                terminate(group, _STOP_SECONDS)
            kill([process for process, _ in self.registry.processes()])
            if started:
                self.registry.remove([entry.name for entry in started])
        return [entry.name for entry in started]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Prevent concurrent commands from starting or stopping processes."""
        self.registry.folder.mkdir(parents=True, exist_ok=True)
        with (self.registry.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"{self.registry.folder}: another command is starting or stopping the stack; wait until it finishes"
                ) from None
            yield

    def _start_server(
        self,
        name: str,
        command: Callable[[], list[str]],
        environment: dict[str, str],
        port: int,
        url: str,
        variable: str,
    ) -> None:
        if self.registry.running(name):
            self._log(f"{name} is already running: {url}")
            return
        if _port_in_use(port):
            raise UserError(f"port {port} of 127.0.0.1 is used by another process; choose another port with {variable}")
        self._log(f"starting {name} on port {port} ...")
        entry = self.registry.start(name, command(), environment)
        deadline = time.monotonic() + _START_SECONDS
        while not _responds(url):
            self._check_running(entry)
            if time.monotonic() > deadline:
                raise UserError(f"{name}: no response from {url} after {_START_SECONDS:g} s; check its log {entry.log}")
            time.sleep(0.2)

    def _start_worker(self, name: str) -> None:
        pool, limit = self.workers[name]
        if self.registry.running(name):
            self._log(f"{name} is already running")
            return
        self._log(f"starting {name} ...")
        command = [str(_PROGRAMS / "prefect"), "worker", "start", "--pool", pool, "--type", "process"]
        device = _device(name) if pool == "gpu" else {}
        self.registry.start(name, [*command, "--name", name, "--limit", str(limit)], self.environment | device)

    def _terminate_orphans(self) -> None:
        """Terminate runs whose worker has exited; they would share the device with runs of the next worker."""
        workers = {process.pid for entry in self.registry.entries() if (process := self.registry.process(entry))}
        orphans = [run for run in self.registry.flow_runs() if not workers & {parent.pid for parent in run.parents()}]
        if orphans:
            self._log(f"stopping {len(orphans)} processes of runs whose worker has exited ...")
            kill(terminate(orphans, _RUN_SECONDS))

    def _create_sample_data(self) -> None:
        """Create a patch store of the shipped samples for the deployments, unless another store is configured."""
        if self.settings.patches is not None:
            return
        location = f"{self.settings.storage}/data/samples"
        if self._run_cli("inspect", f"{location}/patches", check=False):
            return
        self._log("extracting patches from the shipped samples ...")
        rules = ["--adapter", "configs/datasets/samples.yaml"]
        self._run_cli("ingest", "pngmodel/samples", *rules, "--output", f"{location}/catalogue")
        self._run_cli(
            "patches",
            f"{location}/catalogue",
            "--size",
            "128",
            "--output",
            f"{location}/patches",
            "--cluster",
            "inline",
        )

    def _run_cli(self, *arguments: str, check: bool = True, **changes: str) -> bool:
        command = [str(_PROGRAMS / "pngnoise"), *arguments, "--json"]
        done = subprocess.run(
            command,
            env=self.environment | changes,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode and check:
            raise UserError(f"`pngnoise {' '.join(arguments)}` failed: {done.stderr.strip()[-2000:]}")
        return done.returncode == 0

    def _check_running(self, entry: StackProcess) -> None:
        if self.registry.process(entry) is None:
            last = Path(entry.log).read_text(errors="replace")[-1500:]
            self.registry.remove([entry.name])
            raise UserError(f"{entry.name}: exited during startup; last lines of {entry.log}:\n{last}")


def _device(name: str) -> dict[str, str]:
    """Return the device selection of a gpu worker: devices are assigned in turn and shared if there are too few."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    else:
        import torch

        devices = [str(k) for k in range(torch.cuda.device_count())]
    number = int(name.rpartition("-")[2])
    return {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}


def _port_in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # the server responds, although it requires authentication
    except (OSError, ValueError):
        return False
