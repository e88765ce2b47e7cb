"""JSON records that are computed once and read again while their inputs are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pngmodel.jsontext import decode_json
from tasks.stores.io.filesystem import read_if_there, write_json

KEY = "key"


def recorded(location: str | None, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read the record at ``location`` if it has this key; otherwise compute and write it.

    Args:
        location: file or URL; None: always compute.
        key: digest of everything that the record depends on.
        make: computes the record.
    """
    found = read_record(location, key)
    if found is not None:
        return found
    record = make() | {KEY: key}
    if location is not None:
        write_json(location, record)
    return record


def read_record(location: str | None, key: str) -> dict[str, Any] | None:
    """Read the record at ``location``; None if it is missing or has another key."""
    content = read_if_there(location) if location is not None else None
    if content is None:
        return None
    try:
        record = decode_json(content)
    except ValueError:
        return None  # damaged: computed again
    return record if isinstance(record, dict) and record.get(KEY) == key else None
