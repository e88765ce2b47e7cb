"""Names in records, which a stranger may have written: of files inside of what the record describes, and digests."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_DIGEST = re.compile(r"[0-9a-f]{64}")


def inner(name: str) -> str:
    """The path of a file below the folder or prefix that a record lies in, if it is one.

    Raises:
        ValueError: joined to that folder it would mean a place elsewhere: it is absolute, a URL, or climbs by ``..``.
    """
    parts = name.split("/")
    if "\\" in name or "\0" in name or "::" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r:.80} is no path inside of it, and is not followed")
    return name


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"{text!r:.80} is no sha256")
    return text


RelativePath = Annotated[str, AfterValidator(inner)]
"""A path that cannot leave the folder of its record."""
Digest = Annotated[str, AfterValidator(_digest)]
"""sha256, hexadecimal: where it is part of a path, too."""
