"""What an adapter yields: one record per noisy/clean pair, or per image where one side is not published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tasks.datasets.source import Source

SIDES = ("noisy", "clean")


@dataclass(frozen=True)
class PairRecord:
    """One noisy/clean pair as found, before its pixels were read. URIs, never arrays.

    ``noisy_part`` and ``clean_part`` say which piece of a container file is meant: a TIFF page, a block of a MATLAB
    array (see :mod:`tasks.datasets.formats.pixels`). A benchmark without public ground truth has no ``clean``, a
    source of clean images no ``noisy``.
    """

    pair: str  # id, unique within the dataset
    dataset: str
    scene: str
    camera: str | None
    iso: int | None
    noisy: str | None
    clean: str | None
    licence: str
    split: str = "train"
    noisy_part: str = ""
    clean_part: str = ""
    dtype: str | None = None  # what the owners publish, where that is one thing; else whatever both sides agree on

    def side(self, name: str) -> tuple[str, str] | None:
        """(URI, part) of ``noisy`` or ``clean``, or None when that side is not published."""
        uri = self.noisy if name == "noisy" else self.clean
        return None if uri is None else (uri, self.noisy_part if name == "noisy" else self.clean_part)


@dataclass(frozen=True)
class Unpaired:
    """A thing in the source that cannot become a pair, with its reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Found:
    """All that an adapter found in a source."""

    records: list[PairRecord] = field(default_factory=list)
    rejected: list[Unpaired] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # files that are no part of this layout: notes, other formats


class Adapter(Protocol):
    """Reads the layout of one dataset."""

    def find(self, source: Source) -> Found:
        """List the pairs in ``source`` without reading pixels.

        Raises:
            UserError: ``source`` does not hold this dataset.
        """
        ...
