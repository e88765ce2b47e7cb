"""Checks of the installation for ``pngnoise doctor``: versions, device, shipped files, disk, run history, storage."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import pngmodel
from pngmodel.bundle import SHIPPED, verify_bundle
from pngmodel.errors import UserError
from pngmodel.network.model import fast_dtype

_MIN_FREE_GB = 2
_SAMPLES = Path(pngmodel.__file__).parent / "samples"


def _python() -> str:
    return sys.version.split()[0]


def _torch() -> str:
    cpu = torch.backends.cpu.get_cpu_capability()
    return (
        f"{torch.__version__}, {torch.get_num_threads()} threads, {cpu}, {fast_dtype(torch.device('cpu'))} on the CPU"
    )


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "none (the CPU works; see README for the CUDA build)"
    return torch.cuda.get_device_name(0)


def _pins() -> str:
    found = {name: version(name) for name in ("prefect", "fastapi", "sqlalchemy", "zarr")}
    fastapi = tuple(int(n) for n in found["fastapi"].split(".")[:2])
    if not found["prefect"].startswith("3.8") or fastapi >= (0, 151) or not found["sqlalchemy"].startswith("2.0"):
        raise UserError(f"{found}: these versions break Prefect silently; install with constraints.txt")
    return ", ".join(f"{k} {v}" for k, v in found.items())


def _model() -> str:
    return f"{SHIPPED.name}, digest {verify_bundle(SHIPPED)[:12]}"


def _samples() -> str:
    return f"{len(list(_SAMPLES.glob('*_noisy.png')))} reference pairs"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < _MIN_FREE_GB:
        raise UserError(f"{free:.1f} GB free in {Path.cwd()}, at least {_MIN_FREE_GB} GB are required; free disk space")
    return f"{free:.0f} GB free in the current directory"


def _history() -> str:
    if url := os.environ.get("PREFECT_API_URL"):
        return f"server {url}"
    return f"embedded, in {os.environ.get('PREFECT_HOME', '~/.prefect')}"


def _object_storage() -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "the provider's default")
    keys = (
        "credentials in the environment" if os.environ.get("AWS_ACCESS_KEY_ID") else "no credentials in the environment"
    )
    return f"endpoint {endpoint}, {keys}"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "torch": _torch,
    "cuda": _cuda,
    "pins": _pins,
    "shipped_model": _model,
    "shipped_samples": _samples,
    "disk": _disk,
    "run_history": _history,
    "object_storage": _object_storage,
}


def examine() -> tuple[dict[str, Any], bool]:
    """Run all checks. Returns findings by name, and whether all checks passed."""
    findings: dict[str, Any] = {}
    healthy = True
    for name, check in CHECKS.items():
        try:
            findings[name] = check()
        except UserError as error:
            findings[name], healthy = f"PROBLEM: {error}", False
    return findings, healthy
