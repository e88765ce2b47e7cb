"""Places in parameters that are known when a run begins: a schedule repeats the same parameters for ever."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)
STORAGE, PATCHES, WORK, DEVICE = "PNGNOISE_STORAGE", "PNGNOISE_PATCHES", "PNGNOISE_WORK", "PNGNOISE_DEVICE"
PLACEHOLDERS = {
    "date": "day that the run was scheduled for, UTC, e.g. 2026-11-24",
    "storage": f"{STORAGE}: folder or URL of everything that is shared; default ./runs",
    "patches": f"{PATCHES}: patch store of real pairs; default {{storage}}/data/samples/patches",
    "work": f"{WORK}: local folder for trainings; default ./runs",
    "device": f"{DEVICE}: cpu, cuda or cuda:N; default: cuda where there is one",
}
"""By name, as it stands in braces, what each becomes."""
_BRACES = re.compile(r"\{([a-z]+)\}")


def resolved(parameters: Model, when: datetime | None = None) -> Model:
    """The parameters with ``{date}``, ``{storage}``, ``{patches}``, ``{work}`` and ``{device}`` replaced.

    A corpus whose output has the date in it and whose seed is not given gets the date as its seed (20261124), or every
    night would make the same noise again.

    Args:
        parameters: of a flow.
        when: what ``{date}`` means; default now.

    Other words in braces stay as they are: names of clusters and paths may hold some.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    content = parameters.model_dump(exclude_unset=True)
    changed = _replaced(content, when)
    if changed == content:
        return parameters
    dated = "{date}" in str(content.get("output", ""))
    if dated and "seed" in type(parameters).model_fields and "seed" not in content:
        changed["seed"] = int(when.strftime("%Y%m%d"))
    return type(parameters).model_validate(changed)


def is_for_gate(record: str) -> bool:
    """Whether an evaluation record lies below ``{storage}/evaluations``: those are told to the gate, others are not."""
    return record.startswith(f"{_storage()}/evaluations/")


def _storage() -> str:
    return os.environ.get(STORAGE, "runs").rstrip("/")


def _replaced(value: Any, when: datetime) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, when) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, when) for item in value)
    if isinstance(value, str):
        return _BRACES.sub(lambda found: _meaning(found[1], when), value)
    return value


def _meaning(name: str, when: datetime) -> str:
    match name:
        case "date":
            return f"{when:%Y-%m-%d}"
        case "storage":
            return _storage()
        case "patches":
            return os.environ.get(PATCHES) or f"{_storage()}/data/samples/patches"
        case "work":
            return os.environ.get(WORK, "runs").rstrip("/")
        case "device":
            return os.environ.get(DEVICE) or ("cuda" if torch.cuda.is_available() else "cpu")
        case _:
            return f"{{{name}}}"
