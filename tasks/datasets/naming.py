"""Names for data that come without any."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tasks.datasets.source import Source

NOT_STATED = "not stated"
"""Licence of a user's own images until they state one."""


def dataset_name(source: Source) -> str:
    """The name of the folder or archive as a dataset's name."""
    stem = PurePosixPath(source.url).stem if source.archive else PurePosixPath(source.url).name
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "images"
