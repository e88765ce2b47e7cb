"""The corpus: synthetic noisy images with their clean halves (docs/formats/corpus.md)."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.runtime.provenance import content_key
from tasks.stores.aliases import resolve_alias
from tasks.stores.commits import ObjectFact, Part, PartFacts, object_problem, part_name, stored_plan_key
from tasks.stores.io.filesystem import exists, join, read_bytes, sha256
from tasks.stores.io.tables import decode_table
from tasks.stores.kinds import COMMITS
from tasks.stores.layout import CLEAN, NOISY, Layout
from tasks.stores.reader import ShardReader
from tasks.stores.records import CorpusRecord
from tasks.stores.writer import ShardWriter

COMMIT = COMMITS["corpus"]
KIND = "corpus"
CLEAN_IMAGES, GATE, CARD, REPORT = "clean.parquet", "gate.json", "README.md", "report.html"
CROISSANT = "croissant.json"
FAILED_GATE = "gate-failed.json"
"""Evidence on repeats that failed the gate of a published corpus; not part of the corpus."""
SOURCES = "sources.json"
"""URLs of the sources. The only file with locations; not part of a corpus' identity."""
INDEXED = "indexed"
"""Its key for how the clean images were identified when they were indexed."""
ARRAYS_OF_MODE: dict[str, tuple[str, ...]] = {"pairs": (CLEAN, NOISY), "noisy": (NOISY,), "recipe": (CLEAN, NOISY)}
ROWS_PER_MANIFEST = 1 << 20
_KEPT = 64  # tables of shards in memory

SCHEMA = pa.schema(
    [
        ("sample", pa.int64()),
        ("clean", pa.string()),
        ("clean_licence", pa.string()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("repeat", pa.int32()),
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
"""One row per pair. Means and stds are fractions of the data range; ``expected_std`` is the std of the reference's
noise at the intensities of the clean image; ``saturated`` the share of noisy values at 0 or the maximum; ``sha256`` is
over clean then noisy bytes (C, H, W)."""
MANIFEST_SCHEMA = pa.schema([*SCHEMA, ("accepted", pa.bool_()), ("reason", pa.string())])
"""The same with the verdict of the quality gate."""

_FACTS = ("sha256", "bytes")
SHARD_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("key", pa.string()),
        ("part_sha256", pa.string()),
        *((f"{a}_{f}", pa.int64() if f == "bytes" else pa.string()) for a in (CLEAN, NOISY) for f in _FACTS),
    ]
)
"""One row per shard: its key, the digest of its part, and digest and size of each object."""


def writer(url: str, layout: Layout, recipe: dict[str, Any]) -> ShardWriter:
    """A writer of the corpus at ``url``."""
    return ShardWriter(url, KIND, layout, recipe)


def manifest_name(number: int) -> str:
    """Path of a file of the compacted manifest."""
    return f"manifest/{number:05d}.parquet"


def shards_name(number: int) -> str:
    """Path of the table of the shards in a file of the manifest."""
    return f"shards/{number:05d}.parquet"


def manifest_shards(layout: Layout) -> list[range]:
    """Shards of each file of the manifest. A file has shards of one repeat, so that more repeats add files only."""
    step, per_repeat = max(1, ROWS_PER_MANIFEST // layout.shard), layout.shards_per_repeat
    return [
        range(start + k, min(start + k + step, start + per_repeat))
        for start in range(0, layout.shards, per_repeat)
        for k in range(0, per_repeat, step)
    ]


def shard_row(layout: Layout, index: int, part_sha256: str, facts: PartFacts) -> dict[str, Any]:
    """A row of :data:`SHARD_SCHEMA`."""
    row: dict[str, Any] = {"shard": index, "key": facts.key, "part_sha256": part_sha256}
    for array, path in layout.objects(index).items():
        row |= {f"{array}_{name}": getattr(facts.objects[path], name) for name in _FACTS}
    return row


def corpus_digest(key: str | None, layout: Layout, parts: Iterable[str]) -> str:
    """Digest of a corpus: plan, repeats and the digests of its parts in order; a recipe has no parts."""
    whole = hashlib.sha256()
    for digests in parts:
        whole.update(digests.encode())
    return content_key([key, layout.repeats, whole.hexdigest()])


def published_corpus(url: str) -> Corpus | None:
    """The corpus at ``url`` (not an alias); None if none is published or its record is damaged.

    Raises:
        UserError: it is of another version.
    """
    if not exists(join(url, COMMIT)):
        return None
    try:
        return Corpus(url)
    except IntegrityError:
        return None


class Corpus(ShardReader[CorpusRecord]):
    """A published corpus of pairs, of noisy images, or of recipes without images."""

    @classmethod
    def open(cls, url: str, *, kept_shards: int = 0) -> Corpus:
        """Open a corpus by URL or alias. Raises UserError if it is missing, unpublished or of another version."""
        return cls(resolve_alias(url), kept_shards=kept_shards)

    def __init__(self, url: str, *, kept_shards: int = 0) -> None:
        """As :meth:`open`, without aliases."""
        super().__init__(url, COMMIT, CorpusRecord, kept_shards=kept_shards)
        if self.stored and self.layout.shards > len(self.record.files) * ROWS_PER_MANIFEST:
            raise IntegrityError(
                f"{join(self.url, COMMIT)}: lists {len(self.record.files)} files, too few for "
                f"{self.layout.shards} shards; make the corpus again"
            )
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()  # tables of shards by number
        self._files = manifest_shards(self.layout) if self.stored else []

    @property
    def stored(self) -> bool:
        """Whether it contains images, not only recipes."""
        return self.record.mode != "recipe"

    def shards(self) -> Iterator[pa.Table]:
        """The tables of shards, in order (:data:`SHARD_SCHEMA`); none for a recipe."""
        for number, shards in enumerate(self._files if self.stored else ()):
            yield self._shards_of(number, shards)

    def _shards_of(self, number: int, shards: range) -> pa.Table:
        table = self._file(shards_name(number), SHARD_SCHEMA)
        if table.column("shard").to_pylist() != list(shards):
            location = join(self.url, shards_name(number))
            raise IntegrityError(f"{location}: does not list every shard; make the corpus again")
        return table

    def require_stored(self) -> None:
        """Raise a UserError if the corpus contains recipes, not images."""
        if not self.stored:
            raise UserError(
                f"{self.url}: contains recipes, not images; make them with `pngnoise materialise {self.url} --output "
                "...`, or read it with tasks.corpus.torch_dataset.CorpusDataset, which generates images on demand"
            )

    def part(self, index: int) -> Part:
        """The record of a shard."""
        self.require_stored()
        row = self._row_of(index)
        try:
            objects = {
                path: ObjectFact(**{name: row[f"{array}_{name}"] for name in _FACTS})
                for array, path in self.layout.objects(index).items()
            }
            return Part(part=part_name(index), sha256=row["part_sha256"], objects=objects)
        except ValidationError as error:
            raise IntegrityError(
                f"{self.url}: its table of shards is damaged (shard {index}: {error.errors()[0]['msg']}); "
                "make the corpus again"
            ) from None

    def _row_of(self, index: int) -> dict[str, Any]:
        number = bisect_right(self._files, index, key=lambda shards: shards.start) - 1
        if number not in self._kept:
            self._kept[number] = self._shards_of(number, self._files[number])
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[number].slice(index - self._files[number].start, 1).to_pylist()[0]  # type: ignore[no-any-return]

    def parts_digest(self) -> str:
        """See :meth:`ShardReader.parts_digest`."""
        parts = (digest for table in self.shards() for digest in table.column("part_sha256").to_pylist())
        return corpus_digest(stored_plan_key(self.url), self.layout, parts)

    def _read_table(self) -> pa.Table:
        return pa.concat_tables(list(self.manifest()))

    def manifest(self) -> Iterator[pa.Table]:
        """The files of the manifest, in order (:data:`MANIFEST_SCHEMA`)."""
        self.require_stored()
        for number in range(len(self._files)):
            table, shards = self._file(manifest_name(number), MANIFEST_SCHEMA), self._files[number]
            pairs = self.layout.rows(shards[-1]).stop - self.layout.rows(shards[0]).start
            if table.num_rows != pairs:
                location = join(self.url, manifest_name(number))
                raise IntegrityError(f"{location}: has {table.num_rows} rows for {pairs} pairs; make the corpus again")
            yield table

    def _file(self, name: str, schema: pa.Schema) -> pa.Table:
        location = join(self.url, name)
        content = read_bytes(location)
        if sha256(content) != self.record.files.get(name):
            raise IntegrityError(
                f"{location}: sha256 differs from {COMMIT}; `pngnoise corpus repair {self.url}` repairs it"
            )
        return decode_table(content, location, schema)

    def verify_files(self) -> Iterator[str]:
        """Check every published file that is not a shard; yields one line per problem."""
        for name, expected in self.record.files.items():
            yield from object_problem(join(self.url, name), expected)

    def verify(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        """As :meth:`ShardReader.verify`, with every published file."""
        broken = list(self.verify_files())
        yield from broken
        if not any(join(self.url, "shards/") in line for line in broken):
            yield from super().verify(range(0) if not self.stored else shards)
