"""The corpus: synthetic noisy images with their clean halves (docs/formats/corpus.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tasks.stores.filesystem import exists, join, read_bytes, sha256
from tasks.stores.layout import Layout
from tasks.stores.reader import ShardReader
from tasks.stores.records import CorpusRecord
from tasks.stores.writer import ShardWriter

COMMIT = "corpus.json"
KIND = "corpus"
MANIFEST, GATE, CARD, REPORT = "manifest.parquet", "gate.json", "README.md", "report.html"

SCHEMA = pa.schema(
    [
        ("sample", pa.int64()),
        ("clean", pa.string()),
        ("clean_licence", pa.string()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("draw", pa.int32()),
        ("reference", pa.string()),
        ("reference_camera", pa.string()),
        ("reference_iso", pa.int32()),
        ("reference_licence", pa.string()),
        ("prompt_source", pa.string()),
        ("seed", pa.uint64()),
        ("clean_mean", pa.float32()),
        ("noise_mean", pa.float32()),
        ("noise_std", pa.float32()),
        ("expected_std", pa.float32()),
        ("saturated", pa.float32()),
        ("noise_sha256", pa.string()),
        ("sha256", pa.string()),
    ]
)
"""One row per pair. Means and stds are fractions of full scale; ``expected_std`` is the reference's noise std at
the clean image's intensities; ``saturated`` the share of noisy values at the ends of the range; ``sha256`` is over
clean then noisy bytes (C, H, W)."""


def writer(url: str, layout: Layout, recipe: dict[str, Any]) -> ShardWriter:
    """A writer of the corpus at ``url``."""
    return ShardWriter(url, KIND, layout, recipe)


class Corpus(ShardReader[CorpusRecord]):
    """A published corpus."""

    @classmethod
    def open(cls, url: str) -> Corpus:
        """Open a corpus. Raises UserError when it is absent, unpublished or of another version."""
        return cls(url, COMMIT, CorpusRecord)

    def verify(self) -> Iterator[str]:
        """Check shards, parts and every published file; yields one line per problem."""
        yield from super().verify()
        for name, expected in self.record.files.items():
            place = join(self.url, name)
            if not exists(place):
                yield f"{place}: missing"
            elif sha256(read_bytes(place)) != expected:
                yield f"{place}: sha256 differs from {COMMIT}"
