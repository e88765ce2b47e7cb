"""Provenance of results: versions of code and packages, device. No timestamps, so that results are byte-identical."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pngmodel.network.model import fast_dtype

_ROOT = Path(__file__).resolve().parents[2]
# Sources that determine the pixels of a corpus; evaluation_version adds those that determine metrics.
_MODEL = ("pngmodel", "pngmodel/network", "pngmodel/statistics", "pngmodel/baselines", "pngmodel/baselines/*")
_SYNTHESIS = (
    "tasks/corpus/plan.py",
    "tasks/corpus/generate.py",
    "tasks/corpus/crops.py",
    "tasks/corpus/reference_policy.py",
    "tasks/datasets/clean_images.py",
    "tasks/models/prompt_bank.py",
)


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the git commit of a checkout, with ``+`` if files were changed, or ``release VERSION`` if installed."""
    if not (_ROOT / ".git").exists():
        return f"release {_version('pngnoise')}"
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "pngmodel", "tasks", "flows")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head[:12] + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return version and digest of the sources that determine the pixels of a corpus, committed or not."""
    return _sources_version([*(f"{folder}/*.py" for folder in _MODEL), *_SYNTHESIS])


@lru_cache(maxsize=1)
def evaluation_version() -> str:
    """Return version and digest of the sources that determine metrics, with the versions of torch and NumPy."""
    folders = (*_MODEL, "pngmodel/denoisers", "pngmodel/metrics", "tasks/evaluation")
    versions = " ".join(f"{name} {_version(name)}" for name in ("torch", "numpy"))
    return f"{_sources_version(f'{folder}/*.py' for folder in folders)}, {versions}"


def _sources_version(patterns: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in _ROOT.glob(pattern)):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{_version('pngnoise')} {digest.hexdigest()[:16]}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


_DECODERS = ("pillow", "imagecodecs", "tifffile", "h5py")
_RECORDED = ("pngnoise", "torch", "numpy", "zarr", "numcodecs", "pyarrow", "matplotlib", *_DECODERS)


def packages() -> dict[str, str]:
    """Return the versions of the packages that determine the bytes of a result."""
    return {name: _version(name) for name in _RECORDED}


def device_name(device: str) -> str:
    """Describe a device by what may affect rounding, e.g. ``cpu x86_64 (AVX2, float32)`` or the name of the GPU."""
    dtype = str(fast_dtype(torch.device(device))).removeprefix("torch.")
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(torch.device(device))} ({dtype})"
    return f"cpu {platform.machine()} ({torch.backends.cpu.get_cpu_capability()}, {dtype})"


def content_key(content: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
