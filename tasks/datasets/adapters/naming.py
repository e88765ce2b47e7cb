"""Default metadata of images without metadata, and parsing of ISO values."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tasks.datasets.records import PairRecord
from tasks.datasets.source import Source

NOT_STATED = "not stated"
"""Licence of images for which the user states none."""


_MAX_ISO = 10_000_000


def iso_of(text: str | None) -> int | None:
    """Parse an ISO value; None if it is invalid."""
    if text is None or not text.isdecimal() or len(text) > 8:
        return None
    return value if 0 < (value := int(text)) <= _MAX_ISO else None


def unstated(
    source: Source,
    pair: str,
    noisy: str | None,
    clean: str,
    *,
    scene: str | None = None,
    parts: tuple[str, str] = ("", ""),
) -> PairRecord:
    """Create the record of images without known camera, ISO and licence.

    Args:
        source: Source of the images; its name becomes the name of the dataset.
        pair: Id of the pair.
        noisy: URL of the noisy image.
        clean: URL of the clean image.
        scene: Scene; default: the id of the pair.
        parts: Parts of the noisy and clean file, see :mod:`tasks.datasets.formats.pixels`.
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
    """Derive the name of the dataset from the name of the folder, archive or file."""
    file = source.archive or source.single
    stem = PurePosixPath(source.url).stem if file else PurePosixPath(source.url).name
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "images"
