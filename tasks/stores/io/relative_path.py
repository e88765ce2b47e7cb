"""Paths and digests in records. Records may come from untrusted sources."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_DIGEST = re.compile(r"[0-9a-f]{64}")


def inner(name: str) -> str:
    """Validate the path of a file relative to the folder of its record.

    Raises:
        ValueError: it is absolute, a URL, or contains ``..``.
    """
    parts = name.split("/")
    if "\\" in name or "\0" in name or "::" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r:.80} is not a path inside the store; it is not followed")
    return name


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"{text!r:.80} is not a sha256")
    return text


RelativePath = Annotated[str, AfterValidator(inner)]
"""A path that cannot leave the folder of its record."""
Digest = Annotated[str, AfterValidator(_digest)]
"""sha256, hexadecimal; safe as part of a path."""
