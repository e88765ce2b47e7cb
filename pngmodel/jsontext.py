"""JSON that anybody may have written: what is no value that later code can walk is a ValueError."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_DEEPEST = 64  # levels; what is written here has less than ten


def decode_json(content: bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON in UTF-8, or is nested so deep that whoever writes, compares or prints it would fail.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"nested deeper than {_DEEPEST} levels") from None
    if _brackets(content) > _DEEPEST and _depth(found) > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    return found


def _brackets(content: bytes) -> int:
    """Most brackets that are open at once, those in strings too: never less than the depth, and quickly counted."""
    text = np.frombuffer(content, np.uint8) | 0x20  # [ and {, ] and } differ in this bit
    steps = (text == ord("{")).astype(np.int32) - (text == ord("}"))
    return int(steps.cumsum().max(initial=0))


def _depth(found: Any) -> int:
    depth, level = 0, [found]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [member for v in level for member in (v.values() if isinstance(v, dict) else v)]
    return depth
