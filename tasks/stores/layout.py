"""Sizes and names of a sharded store of images: what lies where, before and after any pixel of it exists.

A folder or prefix with one or two Zarr v3 arrays ``clean`` and ``noisy`` (N, C, H, W), one Parquet part per shard
and a commit record written last:

    plan.json               what is being made, written first; another plan at the same place is refused
    clean/ noisy/           chunk = one image, shard = many
    parts/00000.parquet     one row per pair of that shard; its metadata holds the digests of its objects
    <commit>.json           the digests of all parts; a store without it is not readable
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from pydantic import ConfigDict

from tasks.stores.shardfile import DTYPES, ChunkCodec

CLEAN, NOISY = ARRAYS = ("clean", "noisy")
PLAN = "plan.json"
FORMAT_VERSION = 2
"""Of patch stores and corpora. 1 had no padded layout and other codecs."""


@dataclass(frozen=True)
class Layout:
    """Sizes of a store.

    Dense (``filled`` is None): shard k holds pairs k * shard to (k + 1) * shard, the last one what is left, and pair i
    lies in slot i of the arrays. Padded: shard k holds ``filled[k]`` pairs, its other slots are absent.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    pairs: int
    shard: int
    channels: int
    height: int
    width: int
    dtype: str
    arrays: tuple[str, ...] = ARRAYS
    filled: tuple[int, ...] | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.pairs // self.shard) if self.filled is None else len(self.filled)

    @property
    def length(self) -> int:
        """First dimension of the arrays: the pairs of a dense store, the slots of a padded one."""
        return self.pairs if self.filled is None else len(self.filled) * self.shard

    @cached_property
    def _starts(self) -> list[int]:
        """First pair of every shard of a padded store."""
        return [0, *accumulate(self.filled or ())]

    def rows(self, index: int) -> range:
        """Pairs of shard ``index``."""
        if self.filled is None:
            return range(index * self.shard, min((index + 1) * self.shard, self.pairs))
        return range(self._starts[index], self._starts[index + 1])

    def place(self, pair: int) -> tuple[int, int]:
        """Shard of a pair, and its position in that shard."""
        if self.filled is None:
            return divmod(pair, self.shard)
        index = bisect_right(self._starts, pair) - 1
        return index, pair - self._starts[index]

    def slot(self, pair: int) -> int:
        """Index of a pair in the arrays."""
        index, position = self.place(pair)
        return index * self.shard + position

    @property
    def codec(self) -> ChunkCodec:
        """How one image becomes a chunk."""
        return ChunkCodec(self.channels, self.height, self.width, self.dtype)

    @property
    def bytes_per_pair(self) -> int:
        """Uncompressed size of one pair, or of one image where there is one array."""
        return len(self.arrays) * self.channels * self.height * self.width * np.dtype(self.dtype).itemsize

    def problem(self) -> str | None:
        """What is impossible about these sizes, in words; None when all is well."""
        if min(self.pairs, self.shard, self.channels, self.height, self.width) < 1:
            return "a size below 1"
        if not self.arrays or set(self.arrays) - set(ARRAYS):
            return f"arrays {self.arrays}; known: {ARRAYS}"
        if self.dtype not in DTYPES:
            return f"dtype {self.dtype!r}; known: {', '.join(DTYPES)}"
        if self.filled is None:
            return None
        if sum(self.filled) != self.pairs or not all(0 < n <= self.shard for n in self.filled):
            return f"{self.pairs} pairs do not fill the shards as 'filled' says"
        return None

    def as_json(self) -> dict[str, Any]:
        """For records: lists in the place of tuples, as JSON gives them back."""
        content = asdict(self)
        return content | {
            "arrays": list(self.arrays),
            "filled": None if self.filled is None else list(self.filled),
        }


def peak(dtype: str) -> float:
    """Full scale of integer levels; floats in a store without a ``full_scale`` of their own have 1."""
    return float(np.iinfo(dtype).max) if np.dtype(dtype).kind == "u" else 1.0


def part_name(index: int) -> str:
    """Path of a shard's Parquet part in its store."""
    return f"parts/{index:05d}.parquet"


def array_document(array: str) -> str:
    """Path of an array's metadata in its store (Zarr v3)."""
    return f"{array}/zarr.json"


def shard_object(array: str, index: int) -> str:
    """Path of a shard's object in its store (Zarr v3 default key encoding)."""
    return f"{array}/c/{index}/0/0/0"
