"""Sizes and names of a sharded store of images: which object holds which image.

A store is a folder or prefix with one or two Zarr v3 arrays ``clean`` (N, C, H, W) and ``noisy`` (the same, or with
the repeats of a corpus in front). A chunk is one image, a shard holds many. :mod:`tasks.stores.commits` describes the
files beside the arrays.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from pydantic import ConfigDict

from tasks.stores.shard_file import DTYPES, ChunkCodec

CLEAN, NOISY = ARRAYS = ("clean", "noisy")
GROUP = "zarr.json"
_MAX_IMAGE, _MAX_PAIRS, _MAX_SHARDS, _MAX_SLOTS = 1 << 30, 1 << 40, 1 << 26, 1 << 24
"""Limits beyond any real store, so that a hostile record cannot consume memory or time."""
FORMAT_VERSION = 4
"""Of patch stores, corpora and prompt banks."""


@dataclass(frozen=True)
class Layout:
    """Sizes of a store.

    Dense (``filled`` is None): shard k holds pairs k * shard to (k + 1) * shard, and pair i is in slot i of the arrays.
    Padded: shard k holds ``filled[k]`` pairs, its other slots are absent.

    With ``repeats`` (a corpus): every clean image once, N = pairs / repeats, and ``noisy`` is (repeats, N, C, H, W).
    Pair r * N + i is repeat r of clean image i. A shard belongs to one repeat, the clean images to the shards of
    repeat 0, so that more repeats add objects and change none.
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
    repeats: int | None = None

    @property
    def images(self) -> int:
        """Pairs of one repeat."""
        return self.pairs // (self.repeats or 1)

    @property
    def shards(self) -> int:
        """Number of shards, of all repeats."""
        return self.shards_per_repeat * (self.repeats or 1) if self.filled is None else len(self.filled)

    @property
    def shards_per_repeat(self) -> int:
        """Shards of each repeat of a dense layout."""
        return -(-self.images // self.shard)

    @property
    def length(self) -> int:
        """Length of the arrays: images of a dense store, slots of a padded one."""
        return self.images if self.filled is None else len(self.filled) * self.shard

    @cached_property
    def _starts(self) -> list[int]:
        """First pair of every shard of a padded store."""
        return [0, *accumulate(self.filled or ())]

    def rows(self, index: int) -> range:
        """Pairs of shard ``index``."""
        if self.filled is None:
            repeat, within = divmod(index, self.shards_per_repeat)
            start = repeat * self.images
            return range(start + within * self.shard, start + min((within + 1) * self.shard, self.images))
        return range(self._starts[index], self._starts[index + 1])

    def location(self, pair: int, array: str = NOISY) -> tuple[int, int]:
        """Shard that holds the image of a pair in ``array``, and its position in that shard."""
        if self.filled is None:
            repeat, image = divmod(pair, self.images)
            within, position = divmod(image, self.shard)
            own = array == NOISY  # clean images belong to repeat 0
            return within + (repeat * self.shards_per_repeat if own else 0), position
        index = bisect_right(self._starts, pair) - 1
        return index, pair - self._starts[index]

    def slot(self, pair: int) -> int:
        """Index of a pair's images along the arrays."""
        if self.filled is None:
            return pair % self.images
        index, position = self.location(pair)
        return index * self.shard + position

    def objects(self, index: int) -> dict[str, str]:
        """Paths of the objects of shard ``index``, by array (Zarr v3 default key encoding)."""
        if self.repeats is None:
            return {array: shard_object(array, index) for array in self.arrays}
        repeat, within = divmod(index, self.shards_per_repeat)
        paths = {NOISY: f"{NOISY}/c/{repeat}/{within}/0/0/0"}
        if repeat == 0:
            paths[CLEAN] = shard_object(CLEAN, within)
        return {array: paths[array] for array in self.arrays if array in paths}

    def documents(self) -> dict[str, bytes]:
        """Zarr metadata by path: of every array, and of the group with consolidated metadata."""
        arrays = {}
        for array in self.arrays:
            repeats = (self.repeats,) if self.repeats is not None and array == NOISY else ()
            arrays[array] = self.codec.array_document((*repeats, self.length), self.shard)
        group = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {},
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": {array: json.loads(content) for array, content in arrays.items()},
            },
        }
        found = {array_document(array): content for array, content in arrays.items()}
        return found | {GROUP: (json.dumps(group, indent=2) + "\n").encode()}

    @property
    def codec(self) -> ChunkCodec:
        """Encoder of the chunks."""
        return ChunkCodec(self.channels, self.height, self.width, self.dtype)

    @property
    def bytes_per_image(self) -> int:
        """Uncompressed size of one image."""
        return self.channels * self.height * self.width * np.dtype(self.dtype).itemsize

    @property
    def raw_bytes(self) -> int:
        """Uncompressed size of all arrays."""
        counts = {NOISY: self.pairs, CLEAN: self.images}
        return self.bytes_per_image * sum(counts[array] for array in self.arrays)

    def problem(self) -> str | None:
        """Why these sizes are impossible; None if they are valid."""
        if min(self.pairs, self.shard, self.channels, self.height, self.width) < 1:
            return "a size below 1"
        if set(self.arrays) - set(ARRAYS):
            return f"arrays {self.arrays}; known: {ARRAYS}"
        if self.dtype not in DTYPES:
            return f"dtype {self.dtype!r}; known: {', '.join(DTYPES)}"
        if self.repeats is not None and (self.repeats < 1 or self.pairs % self.repeats or self.filled is not None):
            return f"{self.pairs} pairs in {self.repeats} repeats" + (
                " with padding" if self.filled is not None else ""
            )
        if self.bytes_per_image > _MAX_IMAGE or self.pairs > _MAX_PAIRS or self.shard > _MAX_SLOTS:
            return f"{self.pairs} images of {self.bytes_per_image} bytes in shards of {self.shard}, above the limit"
        if self.filled is None:
            return f"{self.shards} shards, above the limit" if self.shards > _MAX_SHARDS else None
        if sum(self.filled) != self.pairs or not all(0 < n <= self.shard for n in self.filled):
            return f"{self.pairs} pairs do not match 'filled'"
        return None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object: lists instead of tuples."""
        content = asdict(self)
        return content | {
            "arrays": list(self.arrays),
            "filled": None if self.filled is None else list(self.filled),
        }


def peak(dtype: str) -> float:
    """Maximum of an integer dtype; 1 for floats."""
    return float(np.iinfo(dtype).max) if np.dtype(dtype).kind == "u" else 1.0


def array_document(array: str) -> str:
    """Path of an array's metadata in its store (Zarr v3)."""
    return f"{array}/zarr.json"


def shard_object(array: str, index: int) -> str:
    """Path of a shard's object in an array without repeats (Zarr v3 default key encoding)."""
    return f"{array}/c/{index}/0/0/0"
