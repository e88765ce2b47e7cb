"""YAML files into validated models: one way to read them, one kind of error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pngmodel.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def validate(kind: type[Model], content: Any, source: str) -> Model:
    """Validate ``content`` (from ``source``, named in errors) as ``kind``.

    Raises:
        UserError: naming the source, each key, its value and what is allowed.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source}: must hold keys and values, found {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: " + "; ".join(_explain(kind, item) for item in error.errors())) from None


def _explain(kind: type[BaseModel], item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        fields = ", ".join(sorted(kind.model_fields))
        hint = f"; keys here: {fields}" if len(item["loc"]) == 1 else ""
        return f"unknown key '{key}' (value {item['input']!r}){hint}"
    if item["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' has value {item['input']!r}: {item['msg']}"


def load_yaml(path: str | Path, kind: type[Model]) -> Model:
    """Read a YAML file (safe loader) as ``kind``; see :func:`validate` for its errors."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; configuration files of this repository are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return parse_yaml(content, kind, str(path))


def parse_yaml(content: bytes, kind: type[Model], source: str) -> Model:
    """The content of a YAML file (safe loader) as ``kind``; see :func:`validate` for its errors."""
    try:
        parsed = yaml.safe_load(content.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: is not valid YAML: {error}") from None
    return validate(kind, parsed, source)
