"""Start the parts of the stack in order, and end exactly what was started."""

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

from infra.local.processes import Ledger, Started, end, kill
from infra.local.settings import StackSettings
from infra.local.storage import make_bucket, server_command, server_environment
from pngmodel.errors import UserError

S3, SERVER = "s3", "prefect-server"
_PROGRAMS = Path(sys.executable).parent
_START_SECONDS = 120.0
_RUN_SECONDS, _STOP_SECONDS = 20.0, 15.0
Say = Callable[[str], None]


class Stack:
    """One stack, which lives in a folder."""

    def __init__(self, settings: StackSettings, say: Say = print) -> None:
        self.settings, self._say = settings, say
        self.ledger = Ledger(settings.stack.absolute())
        self.environment = settings.environment()

    @property
    def workers(self) -> dict[str, tuple[str, int]]:
        """Name of each worker, its pool, and how many runs it has at once. A gpu worker has one, on one device."""
        gpus = {f"worker-gpu-{k}": ("gpu", 1) for k in range(self.settings.gpu_slots)}
        return {"worker-cpu": ("cpu", self.settings.cpu_slots)} | gpus

    def up(self) -> None:
        """Start what does not run yet, bring the server up to the files of infra/, make the sample data.

        Raises:
            UserError: a port is taken, or a part does not start; says where its log is. What runs goes on.
        """
        for file in (self.settings.deployments, self.settings.automations):
            if not file.is_file():
                raise UserError(f"{file}: no such file; call this from the folder of the checkout, or name the file")
        with self._alone():
            self._up()

    def _up(self) -> None:
        if self.settings.own_storage:
            folder = self.ledger.folder / S3
            self._serve(
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
            self._serve(
                SERVER,
                lambda: [str(_PROGRAMS / command[0]), *command[1:]],
                self.environment,
                port,
                f"{self.settings.api}/health",
                "PNGNOISE_PREFECT_PORT",
            )
        with ThreadPoolExecutor(1) as beside:  # both take a quarter of a minute, most of it in one process
            samples = beside.submit(self._sample_data)
            self._say("deploying infra/ ...")
            files = ["--file", str(self.settings.deployments), "--automations", str(self.settings.automations)]
            self._pngnoise("deploy", *files, PNGNOISE_CPU_SLOTS=str(self.settings.cpu_slots))
            self._end_orphans()
            for name in self.workers:
                self._work(name)
            samples.result()

    def status(self) -> dict[str, Any]:
        """Which parts run, and the addresses."""
        running = {one.name: f"process {one.pid}" if self.ledger.process(one) else "ENDED" for one in self.ledger.all()}
        addresses = {"prefect": self.environment["PREFECT_API_URL"].removesuffix("/api")}
        if self.settings.storage.startswith("s3://") and self.settings.endpoint:
            addresses["s3"] = self.settings.endpoint
        return {
            "folder": str(self.ledger.folder),
            "processes": running,
            "addresses": addresses,
            "storage": self.settings.storage,
        }

    def down(self) -> list[str]:
        """End all that was started, runs first, so that they can say that they end; returns the names."""
        with self._alone():
            started = self.ledger.all()
            alive = {one.name: process for one in started if (process := self.ledger.process(one))}
            servers = [name for name in (S3, SERVER) if name in alive]
            workers = [process for name, process in alive.items() if name not in servers]
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.suspend()  # or it would begin the next run when one ends
            end(self.ledger.runs(), _RUN_SECONDS)
            for group in (workers, *([alive[name]] for name in servers)):
                end(group, _STOP_SECONDS)
            kill([process for process, _ in self.ledger.members()])
            if started:
                self.ledger.forget([one.name for one in started])
        return [one.name for one in started]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one command at a time starts and ends parts."""
        self.ledger.folder.mkdir(parents=True, exist_ok=True)
        with (self.ledger.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.ledger.folder}: another command starts or ends it; wait for it") from None
            yield

    def _serve(
        self,
        name: str,
        command: Callable[[], list[str]],
        environment: dict[str, str],
        port: int,
        url: str,
        variable: str,
    ) -> None:
        if self.ledger.running(name):
            self._say(f"{name} runs already: {url}")
            return
        if _taken(port):
            raise UserError(f"port {port} of 127.0.0.1 is taken by another process; choose another one: {variable}")
        self._say(f"starting {name} on port {port} ...")
        one = self.ledger.start(name, command(), environment)
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            self._require(one)
            if time.monotonic() > deadline:
                raise UserError(f"{name}: {url} does not answer after {_START_SECONDS:g} s; its log is {one.log}")
            time.sleep(0.2)

    def _work(self, name: str) -> None:
        pool, limit = self.workers[name]
        if self.ledger.running(name):
            self._say(f"{name} runs already")
            return
        self._say(f"starting {name} ...")
        command = [str(_PROGRAMS / "prefect"), "worker", "start", "--pool", pool, "--type", "process"]
        device = _device(name) if pool == "gpu" else {}
        self.ledger.start(name, [*command, "--name", name, "--limit", str(limit)], self.environment | device)

    def _end_orphans(self) -> None:
        """Runs whose worker has ended would share the device with those of the next one."""
        workers = {process.pid for one in self.ledger.all() if (process := self.ledger.process(one))}
        orphans = [run for run in self.ledger.runs() if not workers & {parent.pid for parent in run.parents()}]
        if orphans:
            self._say(f"ending {len(orphans)} processes of runs whose worker has ended ...")
            kill(end(orphans, _RUN_SECONDS))

    def _sample_data(self) -> None:
        """A patch store of the shipped samples, where no other was named: deployments have something to read."""
        if self.settings.patches is not None:
            return
        location = f"{self.settings.storage}/data/samples"
        if self._pngnoise("inspect", f"{location}/patches", check=False):
            return
        self._say("cutting the shipped samples into patches ...")
        rules = ["--adapter", "configs/datasets/samples.yaml"]
        self._pngnoise("ingest", "pngmodel/samples", *rules, "--output", f"{location}/catalogue")
        self._pngnoise(
            "patches",
            f"{location}/catalogue",
            "--size",
            "128",
            "--output",
            f"{location}/patches",
            "--cluster",
            "inline",
        )

    def _pngnoise(self, *arguments: str, check: bool = True, **changes: str) -> bool:
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

    def _require(self, one: Started) -> None:
        if self.ledger.process(one) is None:
            last = Path(one.log).read_text(errors="replace")[-1500:]
            self.ledger.forget([one.name])
            raise UserError(f"{one.name}: ended at once; the end of {one.log}:\n{last}")


def _device(name: str) -> dict[str, str]:
    """The device of a gpu worker as its runs see it: the next one, and the first again when there are no more."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    else:
        import torch

        devices = [str(k) for k in range(torch.cuda.device_count())]
    number = int(name.rpartition("-")[2])
    return {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # it speaks, if not to us: it wants a password
    except (OSError, ValueError):
        return False
