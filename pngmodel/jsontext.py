"""Decoding of untrusted JSON with a limit on its depth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_MAX_DEPTH = 64  # our own files have less than ten levels


def decode_json(content: bytes) -> Any:
    """Decode JSON.

    Raises:
        ValueError: The content is not JSON in UTF-8, or is nested so deeply that recursive code would fail on it.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels") from None
    if _open_brackets(content) > _MAX_DEPTH and _depth(found) > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    return found


def _open_brackets(content: bytes) -> int:
    """Maximum number of open brackets, including those in strings: a fast upper bound of the depth."""
    text = np.frombuffer(content, np.uint8) | 0x20  # [ and {, ] and } differ in this bit
    steps = (text == ord("{")).astype(np.int32) - (text == ord("}"))
    return int(steps.cumsum().max(initial=0))


def _depth(found: Any) -> int:
    depth, level = 0, [found]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [member for v in level for member in (v.values() if isinstance(v, dict) else v)]
    return depth
