"""Records that are made once: a file that says what it depends on is read again instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pngmodel.jsontext import decode_json
from tasks.stores.io.filesystem import read_if_there, write_json

KEY = "key"


def recorded(location: str | None, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record at ``location`` if it has this key; else a new one, which is written there with it.

    Args:
        place: file or URL; none: nothing is kept.
        key: digest of everything that the record depends on.
        make: what makes it.
    """
    found = read_record(location, key)
    if found is not None:
        return found
    record = make() | {KEY: key}
    if location is not None:
        write_json(location, record)
    return record


def read_record(location: str | None, key: str) -> dict[str, Any] | None:
    """The record at ``location`` if there is one with this key."""
    content = read_if_there(location) if location is not None else None
    if content is None:
        return None
    try:
        record = decode_json(content)
    except ValueError:
        return None  # damaged: made anew
    return record if isinstance(record, dict) and record.get(KEY) == key else None
