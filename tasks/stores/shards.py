"""Sharded pairs: what patch stores and corpora have in common.

A folder or prefix with two Zarr v3 arrays ``clean`` and ``noisy`` (N, C, H, W), one Parquet part per shard
and a commit record written last:

    plan.json               what is being made, written first; another plan at the same place is refused
    clean/ noisy/           chunk = one image, shard = many; zstd with checksums
    parts/00000.parquet     one row per pair of that shard; its metadata holds the shard objects' sha256
    <commit>.json           the digests of all parts; a store without it is not readable

A shard is done when its part exists, names the same plan and its objects have the recorded sha256. So a
killed run is finished by running the same command again, and done shards are not made twice.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from pngmodel.errors import IntegrityError, UserError
from tasks.provenance import content_key
from tasks.stores.filesystem import (
    exists,
    join,
    list_files,
    open_array,
    read_bytes,
    read_json,
    sha256,
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
        elif found := list_files(self.url)[:3]:
            raise UserError(
                f"{self.url}: is not empty (it holds {', '.join(found)}) and is no {self._plan['kind']}; "
                "choose an empty output"
            )
        else:
            write_json(place, self._plan | {"key": self.key})
        shape = (self.layout.pairs, self.layout.channels, self.layout.height, self.layout.width)
        for name in ARRAYS:
            if exists(join(self.url, name, "zarr.json")):
                continue
            with writing(self.url):
                zarr.create_array(
                    zarr_store(join(self.url, name), read_only=False),
                    shape=shape,
                    dtype=self.layout.dtype,
                    chunks=(1, *shape[1:]),
                    shards=(self.layout.shard, *shape[1:]),
                    compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
                    fill_value=0,
                    # An image of zeros is data too: nothing may be left out because it is empty.
                    config={"write_empty_chunks": True},
                )

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
        try:
            facts = _facts(read_bytes(place), place)
        except IntegrityError:
            return False
        if facts.get("plan") != self.key:
            return False
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
        facts = {"plan": self.key}
        for name, pixels in zip(ARRAYS, (clean, noisy), strict=True):
            with writing(self.url):
                array = zarr.open_array(zarr_store(join(self.url, name), read_only=False), mode="r+")
                array.with_config({"write_empty_chunks": True})[rows.start : rows.stop] = pixels
            facts[f"{name}_sha256"] = sha256(read_bytes(join(self.url, shard_object(name, index))))
        metadata = {f"pngnoise.{k}".encode(): v.encode() for k, v in facts.items()}
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        write_bytes(join(self.url, part_name(index)), buffer.getvalue())

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
            facts = _facts(content, place)
            entries.append({"part": part_name(index), "sha256": sha256(content), **facts})
        if missing:
            raise UserError(f"{self.url}: shards {missing[:10]} are missing; run the same command again")
        return entries

    def commit(self, name: str, record: dict[str, Any]) -> str:
        """Write the commit record last; returns the store's digest."""
        parts = self.parts()
        digest = content_key([self.key, parts])
        write_json(
            join(self.url, name),
            record | {"kind": self._plan["kind"], "layout": asdict(self.layout), "parts": parts, "digest": digest},
        )
        return digest


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _facts(content: bytes, place: str) -> dict[str, str]:
    try:
        metadata = pq.read_schema(io.BytesIO(content)).metadata or {}
    except pa.ArrowInvalid as error:
        raise IntegrityError(f"{place}: is not a Parquet file ({error}); run the same command again") from None
    prefix = b"pngnoise."
    return {k.removeprefix(prefix).decode(): v.decode() for k, v in metadata.items() if k.startswith(prefix)}


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
        self.url, self.record = url, read_json(place)
        self.layout = Layout(**self.record["layout"])
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._table: pa.Table | None = None

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
            self._table = pa.concat_tables([self._part(entry) for entry in self.record["parts"]])
        return self._table

    def _part(self, entry: dict[str, Any]) -> pa.Table:
        place = join(self.url, entry["part"])
        content = read_bytes(place)
        if sha256(content) != entry["sha256"]:
            raise IntegrityError(f"{place}: sha256 differs from the commit record; the store is damaged, make it again")
        return pq.read_table(io.BytesIO(content)).replace_schema_metadata(None)

    def read(self, row: int) -> tuple[Pixels, Pixels]:
        """(clean, noisy) of one pair, (C, H, W) each."""
        if not 0 <= row < len(self):
            raise UserError(f"{self.url}: there is no pair {row}; it holds {len(self)}")
        for name in ARRAYS:
            if name not in self._arrays:
                self._arrays[name] = open_array(join(self.url, name))
        clean, noisy = (np.asarray(self._arrays[name][row]) for name in ARRAYS)
        return clean, noisy

    def verify(self) -> Iterator[str]:
        """Check every object against the commit record; yields one line per problem, none when all is well."""
        if content_key([content_key(self._plan()), self.record["parts"]]) != self.digest:
            yield f"{self.url}: the commit record's digest does not fit its own content; it was edited"
        for index, entry in enumerate(self.record["parts"]):
            for name, place in [("sha256", entry["part"])] + [
                (f"{array}_sha256", shard_object(array, index)) for array in ARRAYS
            ]:
                target = join(self.url, place)
                if not exists(target):
                    yield f"{target}: missing"
                elif sha256(read_bytes(target)) != entry[name]:
                    yield f"{target}: sha256 differs from the commit record"

    def _plan(self) -> dict[str, Any]:
        plan = read_json(join(self.url, _PLAN))
        plan.pop("key", None)
        return json.loads(json.dumps(plan))  # type: ignore[no-any-return]
