"""Resumable checkpoints: one folder per checkpoint, tensors without pickle, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.jsontext import decode_json

_PREFIX = "step-"


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any], *, keep: int = 2) -> Path:
    """Write the checkpoint ``folder/step-NNNNNNNN`` atomically, and remove all but the newest ``keep``.

    Raises:
        UserError: The checkpoint cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{step:08d}"
    working = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    try:
        path = working / "tensors.safetensors"
        # clone: tied or expanded storage cannot be saved
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
        record = {"step": step, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **state}
        (working / "state.json").write_text(json.dumps(record, indent=1, sort_keys=True))
        shutil.rmtree(final, ignore_errors=True)
        working.replace(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(working, ignore_errors=True)
        raise UserError(
            f"{final}: the checkpoint cannot be written ({error}); free disk space or choose another output"
        ) from error
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for stale in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)
    return final


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


def newest(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return (state, tensors) of the newest undamaged checkpoint, or None."""
    for path in reversed(_steps(folder)):
        try:
            state = decode_json((path / "state.json").read_bytes())
            blob = (path / "tensors.safetensors").read_bytes()
            if isinstance(state, dict) and hashlib.sha256(blob).hexdigest() == state.get("sha256"):
                return state, load(blob)
        except (OSError, ValueError, SafetensorError):
            continue
    return None


def flatten_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser state as named tensors ``optimiser.<parameter index>.<entry>``."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load a state from :func:`flatten_optimiser` into an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
