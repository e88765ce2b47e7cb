"""What the benchmarks of corpora have in common: photographs to cut, a plan moved elsewhere, an S3-speaking server."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from tasks.corpus.plan import CorpusPlan
from tasks.datasets.formats.image_file import read_image
from tasks.datasets.reference_pairs import SAMPLES
from tasks.runtime.provenance import commit, device_name, packages

_BASELINE = "heteroscedastic"
BUCKET = "noise"
_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()  # until the benchmark ends, however it ends
"""


@dataclass
class Measurements:
    """What one benchmark found: a table, and what was demanded of it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def demand(self, name: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        """Record a figure beside its limit."""
        met = (least is None or value >= least) and (most is None or value <= most)
        wanted = f">= {least:g}" if least is not None else f"<= {most:g}"
        self.verdicts.append({"what": name, "value": round(value, 4), "wanted": wanted, "met": met})


def where(device: str) -> dict[str, Any]:
    """When, where and of what code a figure is."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": device_name(device),
        "load": [round(x, 2) for x in os.getloadavg()],
        "packages": {name: packages()[name] for name in ("torch", "numpy", "zarr") if name in packages()},
    }


def show(name: str, metrics: Measurements, about: Mapping[str, Any], location: Path | None) -> None:
    """Print a table and JSON; write the JSON to ``location`` too."""
    print(f"\n{name}: " + ", ".join(f"{k} {v}" for k, v in about.items() if k != "packages"))
    for table in (metrics.rows, metrics.verdicts):
        if table:
            print("\n" + markdown(table))
    for note in metrics.notes:
        print(f"\n{note}")
    text = json.dumps(
        {"benchmark": name, **about, "rows": metrics.rows, "demanded": metrics.verdicts, "notes": metrics.notes},
        indent=1,
    )
    print("\n" + text)
    if location:
        location.write_text(text + "\n")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; the columns are those of all rows in the order they come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows])


def model_name(option: str) -> str:
    """``shipped``, ``baseline`` (one that costs next to nothing), or a bundle."""
    return _BASELINE if option == "baseline" else option


def photographs(folder: Path, count: int, side: int, tile: int = 256) -> str:
    """PNG files of ``side`` pixels, tiled from the clean samples in another order and mirrored: they decode, compress
    and take noise as photographs do."""
    crops = [read_image(str(path))[:tile, :tile] for path in sorted(SAMPLES.glob("*_clean.png"))]
    folder.mkdir(parents=True, exist_ok=True)
    cells = -(-side // tile)
    for number in range(count):
        rng = np.random.default_rng(number)
        order, turns = rng.integers(len(crops), size=(cells, cells)), rng.integers(4, size=(cells, cells))
        block = [
            [np.rot90(crops[k], turn) for k, turn in zip(row, spins, strict=True)]
            for row, spins in zip(order, turns, strict=True)
        ]
        image = np.concatenate([np.concatenate(row, axis=1) for row in block])[:side, :side]
        (folder / f"{number:06d}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image), level=3))
    return str(folder)


def moved(plan: CorpusPlan, output: str) -> CorpusPlan:
    """The same plan for another place."""
    return replace(plan, job=replace(plan.job, parameters=plan.parameters.model_copy(update={"output": output})))


def child(program: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a process of its own prints last."""
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory() -> tuple[int, int]:
    """(resident bytes now, most so far) of this process. getrusage would count what the parent had when it forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, most = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return now, most


@contextmanager
def object_storage() -> Iterator[str]:
    """A prefix on the server that AWS_ENDPOINT_URL names, or on moto in a process of its own (it shares no lock)."""
    import s3fs

    server = None
    if "AWS_ENDPOINT_URL" not in os.environ:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout
        os.environ |= {"AWS_ENDPOINT_URL": server.stdout.readline().strip(), "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake"}
        s3fs.S3FileSystem().mkdir(BUCKET)
    prefix = f"{BUCKET}/benchmark-{os.getpid()}"
    try:
        yield f"s3://{prefix}"
        storage = s3fs.S3FileSystem()
        storage.invalidate_cache()
        if storage.exists(prefix):
            storage.rm(prefix, recursive=True)
    finally:
        if server:
            del os.environ["AWS_ENDPOINT_URL"]
            server.terminate()
            server.wait()
