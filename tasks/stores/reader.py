"""Read a committed store, pair by pair or shard by shard. What is absent or damaged is an error, never zeros."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.provenance import content_key
from tasks.stores.filesystem import Span, exists, join, read_bytes, read_json, read_spans, sha256
from tasks.stores.layout import CLEAN, FORMAT_VERSION, NOISY, PLAN, Layout, shard_object
from tasks.stores.parts import decode_part
from tasks.stores.records import ShardObject, StoreRecord
from tasks.stores.shardfile import DamagedShard, Pixels, index_size, read_index

Record = TypeVar("Record", bound=StoreRecord)


class ShardReader(Generic[Record]):
    """Reads a committed store. Nothing is read from a store whose commit record is missing.

    ``kept_shards``: how many whole objects to keep in memory. 0 fetches single chunks (local disks, random reads of
    few pairs); a few make remote reads that stay within a shard for a while one request each.
    """

    def __init__(self, url: str, commit: str, model: type[Record], *, kept_shards: int = 0) -> None:
        self.url, self._commit = url, commit
        self.record = _record(url, commit, model)
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

    @property
    def table(self) -> pa.Table:
        """All parts as one table, row i describing pair i."""
        if self._table is None:
            self._table = pa.concat_tables([self._rows(part.part, part.sha256) for part in self.record.parts])
        return self._table

    def _rows(self, name: str, digest: str) -> pa.Table:
        place = join(self.url, name)
        content = read_bytes(place)
        if sha256(content) != digest:
            raise IntegrityError(f"{place}: sha256 differs from the commit record; the store is damaged, make it again")
        return decode_part(content, place)[0]

    def require(self, *arrays: str) -> None:
        """Raise a UserError when the store does not hold all of ``arrays``."""
        if missing := [name for name in arrays if name not in self.layout.arrays]:
            raise UserError(
                f"{self.url}: holds only {' and '.join(self.layout.arrays)} images, no {' and no '.join(missing)}; "
                "give a store that was made of a catalogue with both sides"
            )

    def read(self, pair: int) -> tuple[Pixels, Pixels]:
        """(clean, noisy) of one pair, (C, H, W) each.

        Raises:
            UserError: the store holds one side only. IntegrityError: they are not what was written.
        """
        self.require(CLEAN, NOISY)
        found = self.read_many([pair], (CLEAN, NOISY))
        return found[CLEAN][0], found[NOISY][0]

    def read_image(self, pair: int, array: str) -> Pixels:
        """One image of one pair, (C, H, W)."""
        self.require(array)
        return self.read_many([pair], (array,))[array][0]

    def read_many(self, pairs: Sequence[int], arrays: Sequence[str]) -> dict[str, list[Pixels]]:
        """Images of several pairs by array, in the order asked for; object storage serves them at once."""
        for pair in pairs:
            if not 0 <= pair < len(self):
                raise UserError(f"{self.url}: there is no pair {pair}; it holds {len(self)}")
        places = [(name, *self.layout.place(pair)) for name in arrays for pair in pairs]
        chunks = self._from_objects(places) if self._kept_shards else self._from_spans(places)
        images = [self._decoded(place, chunk) for place, chunk in zip(places, chunks, strict=True)]
        return {name: images[k * len(pairs) : (k + 1) * len(pairs)] for k, name in enumerate(arrays)}

    def _from_spans(self, places: list[tuple[str, int, int]]) -> list[bytes]:
        """Chunks by ranged reads: one request each, once the shards' indices are known."""
        unknown = sorted({place[:2] for place in places} - set(self._indices))
        spans = []
        for name, index in unknown:
            size = self._fact(name, index).bytes
            spans.append(Span(self._url(name, index), size - index_size(self.layout.shard), size))
        for key, content in zip(unknown, read_spans(spans), strict=True):
            if sha256(content) != self._fact(*key).index_sha256:
                raise self._damaged(*key, "its index has another sha256")
            self._indices[key] = self._index(key, content)
        return read_spans([Span(self._url(*place[:2]), *self._entry(place)) for place in places])

    def _from_objects(self, places: list[tuple[str, int, int]]) -> list[bytes]:
        """Chunks out of whole objects, the last few of which are kept. The arrays of a shard are fetched at once."""
        chunks: dict[tuple[str, int, int], bytes] = {}
        for _, run in groupby(sorted(places, key=_shard), key=_shard):
            members = list(run)
            keys = dict.fromkeys(place[:2] for place in members)
            self._fetch([key for key in keys if key not in self._objects])
            for key in keys:
                self._objects.move_to_end(key)
            chunks |= {place: self._objects[place[:2]][slice(*self._entry(place))] for place in members}
            while len(self._objects) > self._kept_shards * len(self.layout.arrays):
                self._objects.popitem(last=False)
        return [chunks[place] for place in places]

    def _fetch(self, keys: list[tuple[str, int]]) -> None:
        contents = read_spans([Span(self._url(*key), 0, self._fact(*key).bytes) for key in keys])
        for key, content in zip(keys, contents, strict=True):
            if sha256(content) != self._fact(*key).sha256:
                raise self._damaged(*key, "it has another sha256")
            self._objects[key] = content
            self._indices[key] = self._index(key, content[-index_size(self.layout.shard) :])

    def _url(self, name: str, index: int) -> str:
        return join(self.url, shard_object(name, index))

    def _fact(self, name: str, index: int) -> ShardObject:
        return self.record.parts[index].objects[name]

    def _index(self, key: tuple[str, int], content: bytes) -> list[tuple[int, int] | None]:
        size = index_size(self.layout.shard)
        try:
            return read_index(content, self.layout.shard, self._fact(*key).bytes - size)
        except DamagedShard as error:
            raise self._damaged(*key, str(error)) from None

    def _entry(self, place: tuple[str, int, int]) -> tuple[int, int]:
        entry = self._indices[place[:2]][place[2]]
        if entry is None:
            raise self._damaged(place[0], place[1], f"slot {place[2]} is absent where a pair should be")
        return entry

    def _decoded(self, place: tuple[str, int, int], chunk: bytes) -> Pixels:
        try:
            return self._codec.decode(chunk)
        except DamagedShard as error:
            raise self._damaged(place[0], place[1], f"{error} in slot {place[2]}") from None

    def _damaged(self, name: str, index: int, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self._url(name, index)}: is damaged ({what}); `pngnoise verify {self.url}` lists all damage, "
            "the command that made the store mends it"
        )

    def verify(self) -> Iterator[str]:
        """Check every object against the commit record; yields one line per problem, none when all is well."""
        raw = read_json(join(self.url, self._commit))
        if content_key({k: v for k, v in raw.items() if k != "record_sha256"}) != self.record.record_sha256:
            yield f"{join(self.url, self._commit)}: does not fit its own digest; it was edited"
        plan = join(self.url, PLAN)
        if not exists(plan):
            yield f"{plan}: missing"
        else:
            content = read_json(plan)
            content.pop("key", None)
            if content_key([content_key(content), raw["parts"]]) != self.digest:
                yield f"{plan}: does not fit the digest of the commit record; one of them was edited"
        expected = dict(self.record.arrays)
        for index, part in enumerate(self.record.parts):
            expected[part.part] = part.sha256
            expected |= {shard_object(name, index): fact.sha256 for name, fact in part.objects.items()}
        for place, digest in expected.items():
            target = join(self.url, place)
            if not exists(target):
                yield f"{target}: missing"
            elif sha256(read_bytes(target)) != digest:
                yield f"{target}: sha256 differs from the commit record"


def _shard(place: tuple[str, int, int]) -> int:
    return place[1]


def _record(url: str, commit: str, model: type[Record]) -> Record:
    """The commit record, checked: there, of this version, complete."""
    place = join(url, commit)
    if not exists(place):
        state = (
            "was started but not finished; run the same command again (or `pngnoise finalise` after all --parts)"
            if exists(join(url, PLAN))
            else "there is no such store; check the path"
        )
        raise UserError(f"{place}: missing: {state}")
    content = read_json(place)
    version: Any = content.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        remedy = "update pngnoise" if version > FORMAT_VERSION else "make it again with this version, in another place"
        raise UserError(
            f"{place}: key 'format_version' is {version}, this version of pngnoise reads {FORMAT_VERSION}; {remedy}"
        )
    try:
        record = model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise IntegrityError(f"{place}: key '{where}': {first['msg']}; it is damaged, make the store again") from None
    arrays = set(record.layout.arrays)
    if len(record.parts) != record.layout.shards or any(set(part.objects) != arrays for part in record.parts):
        raise IntegrityError(f"{place}: does not list every object of every shard; make the store again")
    return record
