"""Names for data that come without any."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tasks.datasets.records import PairRecord
from tasks.datasets.source import Source

NOT_STATED = "not stated"
"""Licence of a user's own images until they state one."""


_HIGHEST_ISO = 10_000_000


def iso_of(text: str | None) -> int | None:
    """An ISO value as a number, or None when it can be none."""
    if text is None or not text.isdecimal() or len(text) > 8:
        return None
    return value if 0 < (value := int(text)) <= _HIGHEST_ISO else None


def unstated(
    source: Source,
    pair: str,
    noisy: str | None,
    clean: str,
    *,
    scene: str | None = None,
    parts: tuple[str, str] = ("", ""),
) -> PairRecord:
    """The record of a user's own images, of which the layout says neither camera, ISO nor licence.

    ``noisy`` and ``clean`` are URIs, ``parts`` theirs; ``scene``: default the pair's id.
    """
    return PairRecord(
        pair=pair,
        dataset=_dataset_name(source),
        scene=scene or pair,
        camera=None,
        iso=None,
        noisy=noisy,
        clean=clean,
        noisy_part=parts[0],
        clean_part=parts[1],
        licence=NOT_STATED,
    )


def _dataset_name(source: Source) -> str:
    """The name of the folder, archive or file as a dataset's name."""
    file = source.archive or source.single
    stem = PurePosixPath(source.url).stem if file else PurePosixPath(source.url).name
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "images"
