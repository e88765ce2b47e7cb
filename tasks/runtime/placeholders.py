"""Placeholders in parameters, replaced when a run starts, because a schedule uses the same parameters for every run."""

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
    "date": "day for which the run was scheduled, UTC, e.g. 2026-11-24",
    "storage": f"{STORAGE}: shared folder or URL; default ./runs",
    "patches": f"{PATCHES}: patch store of real pairs; default {{storage}}/data/samples/patches",
    "work": f"{WORK}: local folder for trainings; default ./runs",
    "device": f"{DEVICE}: cpu, cuda or cuda:N; default: cuda if available",
}
"""Descriptions of the placeholders by name."""
_BRACES = re.compile(r"\{([a-z]+)\}")


def resolve_placeholders(parameters: Model, when: datetime | None = None) -> Model:
    """Replace ``{date}``, ``{storage}``, ``{patches}``, ``{work}`` and ``{device}`` in all strings of the parameters.

    If the output path contains ``{date}`` and the seed is not set, the date becomes the seed (e.g. 20261124), so that
    a nightly corpus gets new noise every day. Other names in braces are not changed: paths may contain them.

    Args:
        parameters: Parameters of a flow.
        when: Time for ``{date}``; default now.
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


def triggers_promotion(record: str) -> bool:
    """Return whether an evaluation record is below ``{storage}/evaluations``. Only those records trigger promotion."""
    return record.startswith(f"{_storage()}/evaluations/")


def _storage() -> str:
    return os.environ.get(STORAGE, "runs").rstrip("/")


def _replaced(value: Any, when: datetime) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, when) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, when) for item in value)
    if isinstance(value, str):
        return _BRACES.sub(lambda match: _placeholder_value(match[1], when), value)
    return value


def _placeholder_value(name: str, when: datetime) -> str:
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
