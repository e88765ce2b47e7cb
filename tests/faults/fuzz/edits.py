"""Edits of valid inputs: bytes cut and flipped, values of JSON and YAML documents replaced by hostile ones.

Both drivers make them: hypothesis draws the choices, atheris takes them from its random numbers.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import yaml

Choose = Callable[[int], int]
"""``choose(n)``: a number from 0 to n - 1."""
Kind = Literal["bytes", "json", "yaml"]

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3000,
    1 << 31,
    1 << 63,
    10**18,
    10**40,
    0.5,
    -1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "..",
    "../../../../dev/zero",
    "/dev/zero",
    "a\0b",
    "zip://a::b",
    "line\nbreak",
    "\ud800",
    "x" * 3000,
    [],
    [[]],
    [None],
    {},
    {"x": {"y": 1}},
    {"../x": "..", "a\0b": 1},
)
_DEEP = 100_000
_DOCUMENTS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"NaN",
    b"\xff\xfe",
    b'{"a": 1',
    b"[" * _DEEP,
    b'{"a":' * _DEEP,
    b'{"a": ' + b"1" * 5000 + b"}",
    b'{"format_version": ' + b"9" * 5000 + b"}",
    b'{"' + b"k" * 50_000 + b'": 1}',
)
_YAML = (
    b"a: !!timestamp x",
    b"a: 2001-99-99",
    b"a: !!int ''",
    b"a: !!bool perhaps",
    b"a: !!float x",
    b"a: !!binary x",
    b"a: !!python/object/apply:os.getcwd []",
    b"? [a]\n: b",
    b"? {a: b}\n: c",
    b"1: 2\nnull: 3\n2001-01-01: 4",
    b"a: 0x" + b"f" * 20_000,
    b"a: 1" + b":59" * 10_000,
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    b"a: &a [*a]",
    b"<<: {a: 1}\n<<: [1]",
    b"- " * 20_000,
    b"{" * 20_000,
    b"a: |\n" + b" " * 60_000,
    b"a: b: c",
    b"%YAML 9.9\n---\na: 1",
    b"a: 1\n---\nb: 2",
    b"\x00",
)
STANDING: dict[Kind, tuple[bytes, ...]] = {
    "bytes": (b"", b"\0", b"\xff" * 64, bytes(5000)),
    "json": _DOCUMENTS,
    "yaml": (*_DOCUMENTS, *_YAML),
}
"""Inputs of each kind that are tried always, whatever the seeds are."""


def cut_and_flipped(content: bytes, choose: Choose) -> bytes:
    """Up to four bytes changed, half of them in the header; now and then the first part alone."""
    keep = choose(len(content) + 1) if choose(4) == 0 else len(content)
    data = bytearray(content[:keep])
    for k in range(choose(5)):
        if data:
            data[choose(len(data) if k % 2 else min(len(data), 300))] ^= 1 + choose(255)
    return bytes(data)


def edited(content: bytes, kind: Kind, choose: Choose) -> bytes:
    """One input made of a seed."""
    if kind == "bytes" or choose(5) == 0:
        return cut_and_flipped(content, choose)
    try:
        document = json.loads(content) if kind == "json" else yaml.safe_load(content)
        for _ in range(1 + choose(2)):
            document = with_hostile(document, choose)
        if kind == "json":
            return json.dumps(document).encode()
        return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError, RecursionError):
        return cut_and_flipped(content, choose)  # no document any more, or one that cannot be written


def with_hostile(document: Any, choose: Choose) -> Any:
    """The document with one value somewhere replaced, one key renamed, doubled, put in or left out."""
    locations = list(_locations(document))
    if not locations:
        return VALUES[choose(len(VALUES))]
    document = copy.deepcopy(document)
    *way, last = locations[choose(len(locations))]
    parent = document
    for step in way:
        parent = parent[step]
    act = choose(8)
    value = copy.deepcopy(VALUES[choose(len(VALUES))])
    if act == 0:
        del parent[last]
    elif act == 1 and isinstance(parent, dict):
        parent[value if isinstance(value, str) else "x"] = parent.pop(last)
    elif act == 1:
        parent.append(parent[last])
    elif act == 2:
        parent[last] = [parent[last]]
    else:
        parent[last] = value
    return document


def _locations(document: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value below the top."""
    if not isinstance(document, (dict, list)):
        return
    members = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in members:
        yield (*way, key)
        if isinstance(value, (dict, list)):
            yield from _locations(value, (*way, key))
