"""The patch store: patches of catalogued images (docs/formats/patch-store.md)."""

from __future__ import annotations

import pyarrow as pa

from tasks.stores.kinds import COMMITS
from tasks.stores.reader import PartsReader
from tasks.stores.records import PatchStoreRecord

COMMIT = COMMITS["patch store"]
KIND = "patch store"
PAIR_COLUMNS = (
    ("pair", pa.string()),
    ("dataset", pa.string()),
    ("scene", pa.string()),
    ("camera", pa.string()),
    ("iso", pa.int32()),
    ("split", pa.string()),
    ("licence", pa.string()),
)
"""Columns that identify a pair; every table of patches or pairs has them."""

_PER_CHANNEL = pa.list_(pa.field("element", pa.float32()))  # Parquet's name


def schema(arrays: tuple[str, ...]) -> pa.Schema:
    """Columns of the parts: one row per patch.

    Means and stds are per channel, as fractions of the data range. ``saturated`` is the share of values of ``noisy``
    (or of the only array) at 0 or the maximum. ``slot`` is the index of the patch in the arrays.
    """
    pair = [("clean_mean", _PER_CHANNEL), ("noise_mean", _PER_CHANNEL), ("noise_std", _PER_CHANNEL)]
    image = [("image_mean", _PER_CHANNEL), ("image_std", _PER_CHANNEL)]
    return pa.schema(
        [
            ("patch", pa.int64()),
            ("slot", pa.int64()),
            *PAIR_COLUMNS,
            ("y", pa.int32()),
            ("x", pa.int32()),
            ("data_range", pa.float64()),
            *(pair if len(arrays) == 2 else image),
            ("saturated", pa.float32()),
        ]
    )


class PatchStore(PartsReader[PatchStoreRecord]):
    """A committed patch store."""

    @classmethod
    def open(cls, url: str, *, kept_shards: int = 0) -> PatchStore:
        """Open a store. Raises UserError if it is missing, unfinished or of another version."""
        return cls(url, COMMIT, PatchStoreRecord, kept_shards=kept_shards)
