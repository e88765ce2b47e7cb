"""The patch store: noisy/clean patches of catalogued pairs (docs/formats/patch-store.md)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tasks.datasets.records import PAIR_COLUMNS
from tasks.stores.shards import Layout, ShardReader, ShardWriter

COMMIT = "store.json"
KIND = "patch store"

SCHEMA = pa.schema(
    [
        ("patch", pa.int64()),
        *PAIR_COLUMNS,
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("clean_mean", pa.float32()),
        ("noise_mean", pa.float32()),
        ("noise_std", pa.float32()),
        ("sha256", pa.string()),
    ]
)
"""One row per patch; levels of means and std are fractions of full scale; sha256 over clean then noisy bytes."""


def writer(url: str, layout: Layout, recipe: dict[str, Any]) -> ShardWriter:
    """A writer of the patch store at ``url``."""
    return ShardWriter(url, KIND, layout, recipe)


class PatchStore(ShardReader):
    """A committed patch store."""

    @classmethod
    def open(cls, url: str) -> PatchStore:
        """Open a store. Raises UserError when it is absent or unfinished."""
        return cls(url, COMMIT)

    @property
    def licence(self) -> str:
        """Licences of the pairs in it."""
        return str(self.record["licence"])
