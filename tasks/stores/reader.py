"""Reads committed stores of images. Missing or damaged data is an error, never zeros."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Generic, TypeVar

import pyarrow as pa

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import (
    PLAN,
    ObjectFact,
    Part,
    commit_problems,
    decode_part,
    object_problem,
    open_commit,
    part_name,
    part_problems,
    parts_digest,
    stored_plan_key,
)
from tasks.stores.io.filesystem import exists, join, read_bytes, sha256
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.layout import CLEAN, FORMAT_VERSION, NOISY, Layout
from tasks.stores.records import ImageStoreRecord, ShardsRecord
from tasks.stores.shard_file import DamagedShard, Pixels, index_size, read_index

_KEPT_INDICES = 4096
_Location = tuple[str, int, int]
"""Array, shard and slot of an image."""
Record = TypeVar("Record", bound=ImageStoreRecord)
Listed = TypeVar("Listed", bound=ShardsRecord)


class ShardReader(ABC, Generic[Record]):
    """Reads a committed store; refuses one without its commit record.

    ``kept_shards``: number of whole shards to cache in memory. 0 reads single chunks (local disk, random access); with
    a few, remote reads that stay within a shard need one request per shard.
    """

    def __init__(self, url: str, commit: str, model: type[Record], *, kept_shards: int = 0) -> None:
        self.url, self._commit = url, commit
        self.record = open_commit(
            url,
            commit,
            model,
            FORMAT_VERSION,
            absent=lambda: _not_there(url),
            remedy="make it again with this version, in another location",
        )
        self.layout: Layout = self.record.layout
        if problem := self.layout.problem():
            raise IntegrityError(f"{join(url, commit)}: impossible layout ({problem}); make the store again")
        self._codec = self.layout.codec
        self._kept_shards = kept_shards
        self._objects: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._indices: dict[tuple[str, int], list[tuple[int, int] | None]] = {}
        self._table: pa.Table | None = None

    @property
    def digest(self) -> str:
        """Digest of the whole content."""
        return self.record.digest

    @property
    def licence(self) -> str:
        """Licences of the sources."""
        return self.record.licence

    def __len__(self) -> int:
        return self.layout.pairs

    @abstractmethod
    def part(self, index: int) -> Part:
        """The record of a shard."""

    @abstractmethod
    def parts_digest(self) -> str:
        """The digest of the store, recomputed from plan and parts."""

    @property
    def table(self) -> pa.Table:
        """One row per pair; row i describes pair i."""
        if self._table is None:
            self._table = self._read_table()
        return self._table

    @abstractmethod
    def _read_table(self) -> pa.Table: ...

    def _rows(self, name: str, digest: str) -> pa.Table:
        location = join(self.url, name)
        content = read_bytes(location)
        if sha256(content) != digest:
            raise IntegrityError(
                f"{location}: sha256 differs from the commit record; the store is damaged, make it again"
            )
        return decode_part(content, location)[0]

    def require(self, *arrays: str) -> None:
        """Raise a UserError when the store does not hold all of ``arrays``."""
        if missing := [name for name in arrays if name not in self.layout.arrays]:
            raise UserError(
                f"{self.url}: contains only {' and '.join(self.layout.arrays)} images, no {' and no '.join(missing)}; "
                "give a store that was made from a catalogue with both sides"
            )

    def read(self, pair: int) -> tuple[Pixels, Pixels]:
        """(clean, noisy) of one pair, (C, H, W) each.

        Raises:
            UserError: the store has one side only. IntegrityError: they are damaged.
        """
        self.require(CLEAN, NOISY)
        found = self.read_many([pair], (CLEAN, NOISY))
        return found[CLEAN][0], found[NOISY][0]

    def read_image(self, pair: int, array: str) -> Pixels:
        """One image of one pair, (C, H, W)."""
        self.require(array)
        return self.read_many([pair], (array,))[array][0]

    def read_many(self, pairs: Sequence[int], arrays: Sequence[str]) -> dict[str, list[Pixels]]:
        """Images of several pairs by array, in the given order; object storage serves them in parallel."""
        for pair in pairs:
            if not 0 <= pair < len(self):
                raise UserError(f"{self.url}: there is no pair {pair}; it holds {len(self)}")
        locations = [(name, *self.layout.location(pair, name)) for name in arrays for pair in pairs]
        images = self._from_objects(locations) if self._kept_shards else self._from_spans(locations)
        return {name: images[k * len(pairs) : (k + 1) * len(pairs)] for k, name in enumerate(arrays)}

    def _from_spans(self, locations: list[_Location]) -> list[Pixels]:
        """Images by ranged reads: one request each, after the indices of the shards."""
        unknown = sorted({location[:2] for location in locations} - set(self._indices))
        ranges = []
        for name, index in unknown:
            size = self._fact(name, index).bytes
            ranges.append(ByteRange(self._url(name, index), size - index_size(self.layout.shard), size))
        self._indices |= zip(
            unknown, read_ranges(ranges, lambda k, content: self._index(unknown[k], content)), strict=True
        )
        ranges = [ByteRange(self._url(*location[:2]), *self._entry(location)) for location in locations]
        while len(self._indices) > _KEPT_INDICES:  # tens of kilobytes each
            del self._indices[next(iter(self._indices))]
        return read_ranges(ranges, lambda k, content: self._decoded(locations[k], content))

    def _from_objects(self, locations: list[_Location]) -> list[Pixels]:
        """Images out of whole objects, the last few of which are kept. The arrays of a shard are fetched at once."""
        images: dict[_Location, Pixels] = {}
        for _, run in groupby(sorted(locations, key=_shard), key=_shard):
            members = list(run)
            keys = dict.fromkeys(location[:2] for location in members)
            self._fetch([key for key in keys if key not in self._objects])
            for key in keys:
                self._objects.move_to_end(key)
            for location in members:
                chunk = self._objects[location[:2]][slice(*self._entry(location))]
                images[location] = self._decoded(location, chunk)
            while len(self._objects) > self._kept_shards * len(self.layout.arrays):
                self._objects.popitem(last=False)
        return [images[location] for location in locations]

    def _fetch(self, keys: list[tuple[str, int]]) -> None:
        def whole(k: int, content: bytes) -> bytes:
            if sha256(content) != self._fact(*keys[k]).sha256:
                raise self._damaged(*keys[k], "it has another sha256")
            return content

        ranges = [ByteRange(self._url(*key), 0, self._fact(*key).bytes) for key in keys]
        for key, content in zip(keys, read_ranges(ranges, whole), strict=True):
            self._objects[key] = content
            self._indices[key] = self._index(key, content[-index_size(self.layout.shard) :])

    def _url(self, name: str, index: int) -> str:
        return join(self.url, self.layout.objects(index)[name])

    def _fact(self, name: str, index: int) -> ObjectFact:
        return self.part(index).objects[self.layout.objects(index)[name]]

    def _index(self, key: tuple[str, int], content: bytes) -> list[tuple[int, int] | None]:
        size = index_size(self.layout.shard)
        try:
            return read_index(content, self.layout.shard, self._fact(*key).bytes - size)
        except DamagedShard as error:
            raise self._damaged(*key, str(error)) from None

    def _entry(self, location: _Location) -> tuple[int, int]:
        entry = self._indices[location[:2]][location[2]]
        if entry is None:
            raise self._damaged(location[0], location[1], f"slot {location[2]} is absent")
        return entry

    def _decoded(self, location: _Location, chunk: bytes) -> Pixels:
        try:
            return self._codec.decode(chunk)
        except DamagedShard as error:
            raise self._damaged(location[0], location[1], f"{error} in slot {location[2]}") from None

    def _damaged(self, name: str, index: int, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self._url(name, index)}: is damaged ({what}); `pngnoise verify {self.url}` lists all damage, "
            "the command that made the store mends it"
        )

    def verify(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        """Check every object against the records; yields one line per problem.

        ``shards``: check only these, and everything that is not a shard.
        """
        yield from commit_problems(self.url, self._commit, self.record, self.parts_digest())
        for path, digest in self.record.arrays.items():
            yield from object_problem(join(self.url, path), digest)
        for index in range(self.layout.shards) if shards is None else shards:
            yield from self.verify_shard(index)

    def verify_shard(self, index: int) -> Iterator[str]:
        """As :meth:`verify`, of one shard: its part and its objects."""
        yield from part_problems(self.url, self.part(index))


class PartsReader(ShardReader[Listed]):
    """Reads a store whose commit record lists its shards."""

    def __init__(self, url: str, commit: str, model: type[Listed], *, kept_shards: int = 0) -> None:
        super().__init__(url, commit, model, kept_shards=kept_shards)
        parts, layout = self.record.parts, self.layout
        listed = len(parts) == layout.shards  # before a list is made of as many as a record asks for
        wanted = ((part_name(k), set(layout.objects(k).values())) for k in range(layout.shards))
        if not listed or any(
            (part.part, set(part.objects)) != names for part, names in zip(parts, wanted, strict=True)
        ):
            location = join(url, commit)
            raise IntegrityError(f"{location}: does not list every object; make the store again")

    def part(self, index: int) -> Part:
        """The record of a shard."""
        return self.record.parts[index]

    def parts_digest(self) -> str:
        """See :meth:`ShardReader.parts_digest`."""
        return parts_digest(stored_plan_key(self.url), self.record.parts)

    def _read_table(self) -> pa.Table:
        tables = [self._rows(part.part, part.sha256) for part in self.record.parts]
        for index, table in enumerate(tables):
            if table.num_rows != len(self.layout.rows(index)) or not table.schema.equals(tables[0].schema):
                location = join(self.url, self.record.parts[index].part)
                raise IntegrityError(f"{location}: its rows do not match its shard; make the store again")
        return pa.concat_tables(tables)


def _shard(location: tuple[str, int, int]) -> int:
    return location[1]


def _not_there(url: str) -> str:
    if exists(join(url, PLAN)):
        return "the store is not finished; run the same command again (or `pngnoise finalise` after all --parts)"
    return "there is no store; check the path"
