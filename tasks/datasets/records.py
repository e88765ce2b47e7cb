"""What an adapter yields: one record per noisy/clean pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class PairRecord:
    """One noisy/clean pair as found, before its pixels were read. URIs, never arrays."""

    pair: str  # id, unique within the dataset
    dataset: str
    scene: str
    camera: str | None
    iso: int | None
    noisy: str
    clean: str
    licence: str
    split: str = "train"


PAIR_COLUMNS = (
    ("pair", pa.string()),
    ("dataset", pa.string()),
    ("scene", pa.string()),
    ("camera", pa.string()),
    ("iso", pa.int32()),
    ("split", pa.string()),
    ("licence", pa.string()),
)
"""What every table says of the pair that a row came from."""


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


class Adapter(Protocol):
    """Reads the layout of one dataset."""

    def find(self, source: str) -> Found:
        """List the pairs under ``source`` (a folder or URL) without reading pixels.

        Raises:
            UserError: ``source`` does not hold this dataset.
        """
        ...
