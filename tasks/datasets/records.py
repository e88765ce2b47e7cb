"""Results of adapters: one record per noisy/clean pair, or per image of datasets without noisy or clean images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tasks.datasets.source import Source

SIDES = ("noisy", "clean")


@dataclass(frozen=True)
class PairRecord:
    """A noisy/clean pair before its pixels are read, with URLs instead of arrays.

    ``noisy_part`` and ``clean_part`` select a part of a container file, e.g. a TIFF page or a block of a MATLAB array
    (see :mod:`tasks.datasets.formats.pixels`). Benchmarks without public ground truth have no ``clean``, sources of
    clean images no ``noisy``.
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
    dtype: str | None = None  # required dtype of the images; None: any dtype that is equal for both

    def side(self, name: str) -> tuple[str, str] | None:
        """Return (URL, part) of ``noisy`` or ``clean``, or None if the dataset does not have that image."""
        uri = self.noisy if name == "noisy" else self.clean
        return None if uri is None else (uri, self.noisy_part if name == "noisy" else self.clean_part)


@dataclass(frozen=True)
class Unpaired:
    """A pair or file that cannot be used, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Result of an adapter."""

    records: list[PairRecord] = field(default_factory=list)
    rejected: list[Unpaired] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # files that are not part of the layout: notes, other formats


class Adapter(Protocol):
    """Finds the pairs of a dataset by its layout."""

    def find(self, source: Source) -> Found:
        """List the pairs in ``source`` without reading pixels.

        Raises:
            UserError: ``source`` is not this dataset.
        """
        ...
