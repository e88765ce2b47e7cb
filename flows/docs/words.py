"""A key's type, range and default in plain words, from its JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

Schema = Mapping[str, Any]
Link = Callable[[str], str]
"""From the name of a nested model to a link to its keys."""

FREE = "names with anything"
"""A mapping of which a model says no more."""

_NOUNS = {"integer": "whole number", "number": "number", "string": "text"}
_DIGITS = 6  # of floats; 3 / 255 is no number to be read
_LISTED = 8  # items of a default that are written out
_LARGE = 1 << 31


def type_words(schema: Schema, link: Link, *, many: bool = False) -> str:
    """What may stand there. ``many``: of the items of a list."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return alternatives([code(value) for value in schema["enum"]])
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if branches:
        return _union(branches, schema.get("discriminator"), link)
    kind = schema.get("type")
    if kind == "array":
        return _array(schema, link)
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"{FREE if isinstance(values, bool) else f'names with {type_words(values, link, many=True)}'}"
    if kind == "null":
        return code(None)
    if kind == "boolean":
        return "`true` or `false`"
    noun = "path" if schema.get("format") == "path" else _NOUNS.get(str(kind), "anything")
    limits = range_words(schema)
    each = "each " if many and limits else ""
    return f"{noun}{'s' if many and kind else ''}{', ' if limits else ''}{each}{limits}"


def _union(branches: list[Schema], discriminator: Schema | None, link: Link) -> str:
    chosen = {target.rpartition("/")[2]: value for value, target in (discriminator or {}).get("mapping", {}).items()}
    told = []
    for branch in branches:
        words, name = type_words(branch, link), str(branch.get("$ref", "")).rpartition("/")[2]
        if discriminator and name in chosen:
            words += f" with `{discriminator['propertyName']}: {chosen[name]}`"
        told.append(words)
    if any(", " in words for words in told):
        return f"{'; '.join(told[:-1])}; or {told[-1]}"
    return alternatives(told)


def _array(schema: Schema, link: Link) -> str:
    if items := schema.get("prefixItems"):
        each = [type_words(item, link) for item in items]
        if len(set(each)) > 1:
            return f"list of {len(each)}: {'; '.join(each)}"
        return f"{len(each)} {type_words(items[0], link, many=True)}"
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    number = f"{least} to {most} " if most is not None else f"{least} or more " if least else ""
    kind = "set" if schema.get("uniqueItems") else "list"
    return f"{kind} of {number}{type_words(schema.get('items', {}), link, many=True)}"


def range_words(schema: Schema) -> str:
    """The values that are allowed, empty where all are."""
    told = []
    if "minimum" in schema and "maximum" in schema:
        told.append(f"{_number(schema['minimum'])} to {_number(schema['maximum'])}")
    else:
        words = {
            "minimum": "at least",
            "exclusiveMinimum": "more than",
            "maximum": "at most",
            "exclusiveMaximum": "less than",
        }
        told += [f"{word} {_number(schema[key])}" for key, word in words.items() if key in schema]
    if "multipleOf" in schema:
        told.append(f"a multiple of {_number(schema['multipleOf'])}")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None:
        told.append("not empty" if least == 1 else f"at least {least} characters")
    if most is not None:
        told.append(f"at most {most} characters")
    if "pattern" in schema:
        told.append(f"as `{schema['pattern']}`")
    return ", ".join(told)


def _number(value: float) -> str:
    if isinstance(value, int) and value >= _LARGE and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def alternatives(words: list[str]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def default_words(value: Any) -> str:
    """A default as it would stand in a YAML file."""
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_unset=True)
        return code(given) if given else "its own defaults"
    if isinstance(value, list | tuple) and len(value) > _LISTED:
        return f"{len(value)} values, {code(value[0])} to {code(value[-1])}"
    return code(value)


def code(value: Any) -> str:
    """A value as YAML, in code."""
    plain = json.loads(json.dumps(value, default=str), parse_float=lambda digits: float(f"{float(digits):.{_DIGITS}g}"))
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...").strip()
    return f"`{text}`"


def prose(text: str) -> str:
    """A docstring or description as Markdown of one line, fit for a table: no HTML, no bars, no roles."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    for location in range(0, len(parts), 2):
        parts[location] = re.sub(r"([<*])", r"\\\1", parts[location])
    return "".join(parts)


def summary(docstring: str | None) -> str:
    """The first paragraph of a docstring, as :func:`prose`."""
    return prose((docstring or "").split("\n\n")[0])


def row(*cells: str) -> str:
    """A row of a table; a bar ends a cell even inside code."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
