"""The pairs of a corpus as exports see them. Everything that exports know of the corpus store is in this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import decode_part
from tasks.stores.corpus_store import COMMIT, Corpus
from tasks.stores.io.filesystem import join, read_bytes, sha256
from tasks.stores.layout import CLEAN, NOISY
from tasks.stores.shard_file import Pixels

_VERDICT = (pa.field("accepted", pa.bool_()), pa.field("reason", pa.string()))
_AT_ONCE = 16  # pairs in memory: enough for object storage to be asked for many ranges at once


@dataclass(frozen=True)
class ExportPair:
    """One pair on its way out."""

    number: int
    key: str
    """Its number with leading zeros: keys of one corpus sort like the numbers, and have no dot or slash."""
    row: dict[str, Any]
    """Its manifest row."""
    images: dict[str, Pixels]
    """By array (``clean``, ``noisy``), (C, H, W)."""


class CorpusPairs:
    """Reads a published corpus in order, a few pairs at a time.

    Raises:
        UserError: there is no such corpus, or it is unpublished or of another version.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._corpus = Corpus.open(url)
        self.digest: str = self._corpus.digest
        self.licence: str = self._corpus.licence
        layout = self._corpus.layout
        self.arrays: tuple[str, ...] = layout.arrays
        self.dtype: str = layout.dtype
        self.shape: tuple[int, int, int] = (layout.channels, layout.height, layout.width)
        self.shard: int = layout.shard

    def __len__(self) -> int:
        return len(self._corpus)

    @cached_property
    def _verdicts(self) -> tuple[NDArray[np.bool_], dict[int, str]]:
        """Whether the quality gate accepted each pair, and its reasons where it did not."""
        accepted: list[NDArray[np.bool_]] = []
        reasons: dict[int, str] = {}
        for table in self._corpus.manifest():
            part = table["accepted"].to_numpy().astype(bool)
            first = sum(map(len, accepted))
            reasons |= {first + int(n): table["reason"][int(n)].as_py() for n in np.flatnonzero(~part)}
            accepted.append(part)
        return np.concatenate(accepted), reasons

    def require_both(self) -> None:
        """Raise a UserError when the corpus holds noisy images alone."""
        self._corpus.require(CLEAN, NOISY)

    @property
    def accepted(self) -> int:
        """How many pairs the quality gate accepted."""
        return int(self._verdicts[0].sum())

    def key(self, number: int) -> str:
        """The name of a pair in an export."""
        return f"{number:0{max(8, len(str(len(self) - 1)))}d}"

    @cached_property
    def columns(self) -> pa.Schema:
        """Names and types of a manifest row."""
        return self._rows(0).schema

    def _rows(self, shard: int) -> pa.Table:
        part = self._corpus.part(shard)
        location = join(self.url, part.part)
        content = read_bytes(location)
        if sha256(content) != part.sha256:
            raise IntegrityError(f"{location}: sha256 differs from {COMMIT}; the corpus is damaged, make it again")
        table = decode_part(content, location)[0]
        numbers = self._corpus.layout.rows(shard)
        accepted, reasons = self._verdicts
        values = (accepted[numbers.start : numbers.stop].tolist(), [reasons.get(n) for n in numbers])
        for field, value in zip(_VERDICT, values, strict=True):
            table = table.append_column(field, pa.array(value, field.type))
        return table

    def read(self, start: int, stop: int, arrays: Sequence[str], *, accepted_only: bool) -> Iterator[ExportPair]:
        """Pairs ``start`` to before ``stop`` with these images, in order. Memory holds a shard's rows and a few pairs.

        Raises:
            IntegrityError: something is not what was written.
        """
        accepted = self._verdicts[0]
        wanted = [n for n in range(start, stop) if accepted[n] or not accepted_only]
        for shard, members in groupby(wanted, key=lambda n: self._corpus.layout.location(n)[0]):
            table, first = self._rows(shard), self._corpus.layout.rows(shard).start
            inside = list(members)
            for numbers in (inside[k : k + _AT_ONCE] for k in range(0, len(inside), _AT_ONCE)):
                images = self._corpus.read_many(numbers, arrays)
                rows = table.take([n - first for n in numbers]).to_pylist()
                for k, number in enumerate(numbers):
                    pair = {name: images[name][k] for name in arrays}
                    yield ExportPair(number, self.key(number), rows[k], pair)


@lru_cache(maxsize=2)
def planned_pairs(url: str, digest: str) -> CorpusPairs:
    """The corpus that an export was planned with; one instance per process.

    Raises:
        UserError: another corpus is there now.
    """
    pairs = CorpusPairs(url)
    if pairs.digest != digest:
        raise UserError(f"{url}: became another corpus during the export; run the same command again")
    return pairs
