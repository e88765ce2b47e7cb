"""Reads YAML files into validated pydantic models. All errors are :class:`~pngmodel.errors.UserError`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pngmodel.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
_MAX_BYTES = 64 << 10
_MAX_CHARACTERS = 100  # of a key or value in an error message
_MAX_ERRORS = 20
_MAX_DEPTH = 50  # nested brackets
_CONSTRUCTOR_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class _SafeLoader(yaml.SafeLoader):
    """A safe loader that rejects aliases, because nested aliases can expand to a value that fills the memory."""

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        events: Any = self
        if events.flow_level >= _MAX_DEPTH:  # PyYAML's time per character grows with the depth
            raise RecursionError
        return super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            events: Any = self  # PyYAML has no types here
            mark = events.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not supported; write the value out", mark
            )
        return super().compose_node(parent, index)


def validate(kind: type[Model], content: Any, source: str) -> Model:
    """Validate ``content`` as ``kind``.

    Args:
        kind: A pydantic model.
        content: Parsed YAML or JSON.
        source: Origin of the content, named in errors.

    Raises:
        UserError: The content is invalid; names the source, each key, its value and what is allowed.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a mapping of keys to values, got {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        items = error.errors()
        explained = [_explain(kind, item) for item in items[:_MAX_ERRORS]]
        more = [f"and {len(items) - _MAX_ERRORS} more errors"] if len(items) > _MAX_ERRORS else []
        raise UserError(f"{source}: " + "; ".join([*explained, *more])) from None


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."


def _format(value: Any) -> str:
    try:
        return _short(repr(value))
    except (ValueError, RecursionError):
        return f"of type {type(value).__name__}, too long to print"  # Python prints ints of up to 4300 digits


def _explain(kind: type[BaseModel], item: Any) -> str:
    key = _short(".".join(str(part) for part in item["loc"])) or "(top level)"
    value = _format(item["input"])
    if item["type"] == "extra_forbidden":
        fields = ", ".join(sorted(kind.model_fields))
        hint = f"; allowed keys: {fields}" if len(item["loc"]) == 1 else ""
        return f"unknown key '{key}' (value {value}){hint}"
    if item["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' has value {value}: {item['msg']}"


def load_yaml(path: str | Path, kind: type[Model]) -> Model:
    """Read a YAML file and validate it as ``kind``; see :func:`validate` for errors."""
    return validate(kind, read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file without validation, for callers that choose the model by its content.

    Raises:
        UserError: The file does not exist or is not valid YAML.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the configuration files of this repository are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return _parsed(content, str(path))


def parse_yaml(content: bytes, kind: type[Model], source: str) -> Model:
    """Parse the content of a YAML file and validate it as ``kind``; see :func:`validate` for errors."""
    return validate(kind, _parsed(content, source), source)


def _parsed(content: bytes, source: str) -> Any:
    if len(content) > _MAX_BYTES:
        raise UserError(
            f"{source}: has {len(content)} bytes; a configuration file may have at most {_MAX_BYTES}; shorten it"
        )
    try:
        return yaml.load(content.decode(), Loader=_SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: is not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: is nested too deeply for a configuration file; remove levels") from None
    except _CONSTRUCTOR_ERRORS as error:  # raised by PyYAML's constructors of timestamps, numbers, ...
        raise UserError(f"{source}: has a value that YAML cannot convert ({error}); put strings in quotes") from None
