"""Sharded pairs: what patch stores and corpora have in common.

A folder or prefix with two Zarr v3 arrays ``clean`` and ``noisy`` (N, C, H, W), one Parquet part per shard
and a commit record written last:

    plan.json               what is being made, written first; another plan at the same place is refused
    clean/ noisy/           chunk = one image, shard = many; zstd with checksums
    parts/00000.parquet     one row per pair of that shard; its metadata holds the sha256 of its rows and shard objects
    <commit>.json           the digests of all parts; a store without it is not readable

A shard is done when its part exists, names the same plan and its rows and objects have the recorded sha256. So a
killed run is finished by running the same command again, and done shards are not made twice.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from pngmodel.errors import IntegrityError, UserError
from tasks.provenance import content_key
from tasks.stores.filesystem import (
    exists,
    join,
    list_files,
    open_array,
    read_bytes,
    read_json,
    remove,
    sha256,
    sweep,
    write_bytes,
    write_json,
    writing,
    zarr_store,
)

ARRAYS = ("clean", "noisy")
_PLAN = "plan.json"
_ZSTD_LEVEL = 3

Pixels = NDArray[Any]
"""Image levels: uint8 or uint16."""


@dataclass(frozen=True)
class Layout:
    """Sizes of a store. Shard k holds pairs k * shard to (k + 1) * shard, the last one what is left."""

    pairs: int
    shard: int
    channels: int
    height: int
    width: int
    dtype: str

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.pairs // self.shard)

    def rows(self, index: int) -> range:
        """Pairs of shard ``index``."""
        return range(index * self.shard, min((index + 1) * self.shard, self.pairs))

    @property
    def bytes_per_pair(self) -> int:
        """Uncompressed size of one pair."""
        return 2 * self.channels * self.height * self.width * np.dtype(self.dtype).itemsize


def part_name(index: int) -> str:
    """Path of a shard's Parquet part in its store."""
    return f"parts/{index:05d}.parquet"


def array_document(array: str) -> str:
    """Path of an array's metadata in its store (Zarr v3)."""
    return f"{array}/zarr.json"


def shard_object(array: str, index: int) -> str:
    """Path of a shard's object in its store (Zarr v3 default key encoding)."""
    return f"{array}/c/{index}/0/0/0"


class ShardWriter:
    """Writes one store. Several processes may write different shards of one store at once."""

    def __init__(self, url: str, kind: str, layout: Layout, recipe: dict[str, Any]) -> None:
        self.url, self.layout = url, layout
        self._plan = {"kind": kind, "layout": asdict(layout), "recipe": recipe}
        self.key = content_key(self._plan)

    def prepare(self) -> None:
        """Create the store, or accept the one that is there if it has the same plan.

        Raises:
            UserError: the place holds another store, or files that are no store.
        """
        place = join(self.url, _PLAN)
        if exists(place):
            self._same_plan(read_json(place))
        elif found := [f for f in list_files(self.url) if not f.rpartition("/")[2].startswith(".")][:3]:
            raise UserError(
                f"{self.url}: is not empty (it holds {', '.join(found)}) and is no {self._plan['kind']}; "
                "choose an empty output"
            )
        else:
            write_json(place, self._plan | {"key": self.key})
        document = _array_document(self.layout)
        for name in ARRAYS:
            place = join(self.url, array_document(name))
            if not exists(place) or read_bytes(place) != document:
                write_bytes(place, document)

    def _same_plan(self, found: dict[str, Any]) -> None:
        if found.get("key") == self.key:
            return
        ours, theirs = _flat(self._plan), _flat(found)
        different = [k for k in sorted(ours | theirs) if k != "key" and ours.get(k) != theirs.get(k)]
        shown = ", ".join(f"{k} ({theirs.get(k)!r} there, {ours.get(k)!r} asked for)" for k in different[:3])
        raise UserError(
            f"{self.url}: holds another {found.get('kind', 'store')}; it differs in {shown}. "
            "Choose another output, or delete that folder if it is not needed"
        )

    def done(self, index: int) -> bool:
        """Whether the shard is published whole: its part and its objects' checksums hold."""
        place = join(self.url, part_name(index))
        if not exists(place):
            return False
        content = read_bytes(place)
        try:
            table, facts = _part(content, place)
        except IntegrityError:
            return False
        if facts.get("plan") != self.key or facts.get("rows_sha256") != _rows_digest(table):
            return False
        again = _encoded(table, facts)
        if content != again and _written_by(content) == _written_by(again):
            return False  # damaged where no row is; another pyarrow may rightly encode otherwise
        objects = {name: join(self.url, shard_object(name, index)) for name in ARRAYS}
        return all(exists(o) and sha256(read_bytes(o)) == facts.get(f"{name}_sha256") for name, o in objects.items())

    def write(self, index: int, clean: Pixels, noisy: Pixels, table: pa.Table) -> None:
        """Publish one whole shard: both arrays, then its part. ``clean`` and ``noisy`` (n, C, H, W)."""
        rows = self.layout.rows(index)
        expected = (len(rows), self.layout.channels, self.layout.height, self.layout.width)
        # One writer per shard, one write per shard: partial writes of shared shards lose data silently.
        assert clean.shape == noisy.shape == expected, (clean.shape, noisy.shape, expected)
        assert str(clean.dtype) == str(noisy.dtype) == self.layout.dtype
        assert table.num_rows == len(rows)
        facts = {"plan": self.key, "rows_sha256": _rows_digest(table)}
        for name, pixels in zip(ARRAYS, (clean, noisy), strict=True):
            # zarr merges into a shard that is there; a damaged one must not stop its own replacement.
            remove(join(self.url, shard_object(name, index)))
            with writing(self.url):
                array = zarr.open_array(zarr_store(join(self.url, name), read_only=False), mode="r+")
                array.with_config({"write_empty_chunks": True})[rows.start : rows.stop] = pixels
            facts[f"{name}_sha256"] = sha256(read_bytes(join(self.url, shard_object(name, index))))
        write_bytes(join(self.url, part_name(index)), _encoded(table, facts))

    def parts(self) -> list[dict[str, Any]]:
        """Digest and facts of every part, for the commit record.

        Raises:
            UserError: shards are missing.
        """
        entries, missing = [], []
        for index in range(self.layout.shards):
            place = join(self.url, part_name(index))
            if not exists(place):
                missing.append(index)
                continue
            content = read_bytes(place)
            facts = _part(content, place)[1]
            if facts.get("plan") != self.key:
                raise IntegrityError(f"{place}: belongs to another {self._plan['kind']}; two runs wrote to one place")
            entries.append({"part": part_name(index), "sha256": sha256(content), **facts})
        if missing:
            raise UserError(f"{self.url}: shards {missing[:10]} are missing; run the same command again")
        return entries

    def commit(self, name: str, record: dict[str, Any]) -> str:
        """Write the commit record last; returns the store's digest."""
        sweep(self.url)
        parts = self.parts()
        digest = content_key([self.key, parts])
        documents = {place: sha256(read_bytes(join(self.url, place))) for place in map(array_document, ARRAYS)}
        whole = record | {"kind": self._plan["kind"], "layout": asdict(self.layout), "parts": parts, "digest": digest}
        whole |= {"arrays": documents}
        write_json(join(self.url, name), whole | {"record_sha256": content_key(whole)})
        return digest


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _array_document(layout: Layout) -> bytes:
    """The metadata of either array of a store, as zarr writes it."""
    memory: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(memory),
        shape=(layout.pairs, layout.channels, layout.height, layout.width),
        dtype=layout.dtype,
        chunks=(1, layout.channels, layout.height, layout.width),
        shards=(layout.shard, layout.channels, layout.height, layout.width),
        compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
        fill_value=0,
    )
    return bytes(memory["zarr.json"].to_bytes())


def _part(content: bytes, place: str) -> tuple[pa.Table, dict[str, str]]:
    """Rows of a part and the facts in its metadata."""
    try:
        table = pq.read_table(io.BytesIO(content))
        prefix = b"pngnoise."
        metadata = (table.schema.metadata or {}).items()
        facts = {k.removeprefix(prefix).decode(): v.decode() for k, v in metadata if k.startswith(prefix)}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"{place}: is damaged ({error}); run the same command again") from None
    return table.replace_schema_metadata(None), facts


def _encoded(table: pa.Table, facts: dict[str, str]) -> bytes:
    """A part: rows, and facts in its metadata."""
    metadata = {f"pngnoise.{k}".encode(): v.encode() for k, v in facts.items()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def _written_by(content: bytes) -> str:
    return str(pq.read_metadata(io.BytesIO(content)).created_by)


def _rows_digest(table: pa.Table) -> str:
    return content_key([table.schema.names, table.to_pylist()])


class ShardReader:
    """Reads a committed store. Nothing is read from a store whose commit record is missing."""

    def __init__(self, url: str, commit: str) -> None:
        place = join(url, commit)
        if not exists(place):
            state = (
                "was started but not finished; run the same command again"
                if exists(join(url, _PLAN))
                else ("there is no such store; check the path")
            )
            raise UserError(f"{place}: missing: {state}")
        self.url, self.record, self._commit = url, read_json(place), commit
        if missing := {"layout", "parts", "digest", "licence", "recipe"} - set(self.record):
            raise IntegrityError(f"{place}: lacks {', '.join(sorted(missing))}; it is damaged, make the store again")
        self.layout = Layout(**self.record["layout"])
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._table: pa.Table | None = None
        self._digests: list[str] | None = None

    @property
    def digest(self) -> str:
        """Digest of the whole content."""
        return str(self.record["digest"])

    def __len__(self) -> int:
        return self.layout.pairs

    @property
    def table(self) -> pa.Table:
        """All parts as one table, row i describing pair i."""
        if self._table is None:
            self._table = pa.concat_tables([self._rows(entry) for entry in self.record["parts"]])
        return self._table

    def _rows(self, entry: dict[str, Any]) -> pa.Table:
        place = join(self.url, entry["part"])
        content = read_bytes(place)
        if sha256(content) != entry["sha256"]:
            raise IntegrityError(f"{place}: sha256 differs from the commit record; the store is damaged, make it again")
        return _part(content, place)[0]

    def read(self, row: int) -> tuple[Pixels, Pixels]:
        """(clean, noisy) of one pair, (C, H, W) each.

        Raises:
            IntegrityError: they are not what was written. An absent shard would read as zeros.
        """
        if not 0 <= row < len(self):
            raise UserError(f"{self.url}: there is no pair {row}; it holds {len(self)}")
        if self._digests is None:
            self._digests = self.table.column("sha256").to_pylist()
        damaged = IntegrityError(f"{self.url}: pair {row} is damaged or gone; see `pngnoise verify {self.url}`")
        try:
            for name in ARRAYS:
                if name not in self._arrays:
                    self._arrays[name] = open_array(join(self.url, name))
            clean, noisy = (np.ascontiguousarray(self._arrays[name][row]) for name in ARRAYS)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:  # what zarr and its codecs raise
            raise damaged from error
        if sha256(clean.tobytes() + noisy.tobytes()) != self._digests[row]:
            raise damaged
        return clean, noisy

    def verify(self) -> Iterator[str]:
        """Check every object against the commit record; yields one line per problem, none when all is well."""
        record = {k: v for k, v in self.record.items() if k != "record_sha256"}
        if content_key(record) != self.record.get("record_sha256"):
            yield f"{join(self.url, self._commit)}: does not fit its own digest; it was edited"
        plan = join(self.url, _PLAN)
        if not exists(plan):
            yield f"{plan}: missing"
        else:
            content = read_json(plan)
            content.pop("key", None)
            if content_key([content_key(content), self.record["parts"]]) != self.digest:
                yield f"{plan}: does not fit the digest of the commit record; one of them was edited"
        expected = dict(self.record.get("arrays", {}))
        for index, entry in enumerate(self.record["parts"]):
            expected[entry["part"]] = entry["sha256"]
            expected |= {shard_object(array, index): entry[f"{array}_sha256"] for array in ARRAYS}
        for place, digest in expected.items():
            target = join(self.url, place)
            if not exists(target):
                yield f"{target}: missing"
            elif sha256(read_bytes(target)) != digest:
                yield f"{target}: sha256 differs from the commit record"
