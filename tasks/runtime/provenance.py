"""Where a result came from: code version, package versions, device. No times: results are byte-identical."""

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
# Sources that decide the pixels of a corpus, and those that decide metrics.
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
    """The git commit of a source checkout, with ``+`` when files differ from it; ``release`` when installed."""
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
    """Version and digest of the sources that decide pixels: equal code is equal, committed or not."""
    return _sources_version([*(f"{folder}/*.py" for folder in _MODEL), *_SYNTHESIS])


@lru_cache(maxsize=1)
def measuring_version() -> str:
    """Version and digest of the sources and packages that decide metrics: models, denoisers, metrics, evaluation."""
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
_DECIDING = ("pngnoise", "torch", "numpy", "zarr", "numcodecs", "pyarrow", "matplotlib", *_DECODERS)


def packages() -> dict[str, str]:
    """Versions of the packages that decide a result's bytes."""
    return {name: _version(name) for name in _DECIDING}


def device_name(device: str) -> str:
    """The device in words, e.g. ``cpu x86_64 (AVX2, float32)`` or the GPU's name; what rounding may depend on."""
    dtype = str(fast_dtype(torch.device(device))).removeprefix("torch.")
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(torch.device(device))} ({dtype})"
    return f"cpu {platform.machine()} ({torch.backends.cpu.get_cpu_capability()}, {dtype})"


def content_key(content: Any) -> str:
    """sha256 of a JSON-able value, independent of key order, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
