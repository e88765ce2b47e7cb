"""YAML files into validated models: one way to read them, one kind of error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pngmodel.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
_MAX_BYTES = 64 << 10
_MAX_TOLD = 100  # characters of a value
_MAX_ERRORS = 20
_DEEPEST = 50  # brackets in brackets
_NO_VALUES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class _SafeLoader(yaml.SafeLoader):
    """A safe loader without aliases: a few of them, each of the one before, are a value that fills the memory."""

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        events: Any = self
        if events.flow_level >= _DEEPEST:  # each level is looked through for every later character of its line
            raise RecursionError
        return super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            events: Any = self  # the library has no types here
            mark = events.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read; write the value out", mark)
        return super().compose_node(parent, index)


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
        items = error.errors()
        told = [_explain(kind, item) for item in items[:_MAX_ERRORS]]
        more = [f"and {len(items) - _MAX_ERRORS} more"] if len(items) > _MAX_ERRORS else []
        raise UserError(f"{source}: " + "; ".join([*told, *more])) from None


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TOLD else f"{text[:_MAX_TOLD]}..."


def _told(value: Any) -> str:
    try:
        return _short(repr(value))
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too long to be told"  # Python writes whole numbers of 4300 digits at most


def _explain(kind: type[BaseModel], item: Any) -> str:
    key = _short(".".join(str(part) for part in item["loc"])) or "(top level)"
    value = _told(item["input"])
    if item["type"] == "extra_forbidden":
        fields = ", ".join(sorted(kind.model_fields))
        hint = f"; keys here: {fields}" if len(item["loc"]) == 1 else ""
        return f"unknown key '{key}' (value {value}){hint}"
    if item["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}' has value {value}: {item['msg']}"


def load_yaml(path: str | Path, kind: type[Model]) -> Model:
    """Read a YAML file (safe loader) as ``kind``; see :func:`validate` for its errors."""
    return validate(kind, read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """What a YAML file (safe loader) holds, for a caller that tells its kind by that.

    Raises:
        UserError: there is no such file, or it is no YAML.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; configuration files of this repository are in configs/") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return _parsed(content, str(path))


def parse_yaml(content: bytes, kind: type[Model], source: str) -> Model:
    """The content of a YAML file (safe loader) as ``kind``; see :func:`validate` for its errors."""
    return validate(kind, _parsed(content, source), source)


def _parsed(content: bytes, source: str) -> Any:
    if len(content) > _MAX_BYTES:
        raise UserError(f"{source}: has {len(content)} bytes, more than any configuration ({_MAX_BYTES}); shorten it")
    try:
        return yaml.load(content.decode(), Loader=_SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: is not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: is nested deeper than any configuration; write it flat") from None
    except _NO_VALUES as error:  # the library's own constructors of times, numbers, ...
        raise UserError(f"{source}: holds something that is no value of its type ({error}); quote texts") from None
