"""Write a sharded store: plan first, shards with their parts, the commit record last.

A shard is done when its part names the same plan and its rows and objects have the recorded digests. So a killed run is
finished by running the same command again, and done shards are not made twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.runtime.provenance import content_key, packages
from tasks.stores.io.filesystem import (
    exists,
    file_size,
    join,
    read_bytes,
    read_if_whole,
    read_json,
    sha256,
    size_if_there,
    sweep,
    write_inside,
    write_json,
)
from tasks.stores.io.listing import list_files
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.layout import FORMAT_VERSION, PLAN, Layout, part_name
from tasks.stores.parts import Facts, decode_part, encode_part, is_whole, rows_digest
from tasks.stores.plans import begin, plan_key, shard_key
from tasks.stores.records import StoreRecord
from tasks.stores.shard_file import DamagedShard, Pixels, assemble, index_size, read_index

Record = TypeVar("Record", bound=StoreRecord)
_SHOWN = 10


class ShardWriter:
    """Writes one store. Several processes may write different shards of one store at once.

    ``notes`` belong to the plan but decide no content: what a later step, which sees the store alone, has to know.
    """

    def __init__(
        self, url: str, kind: str, layout: Layout, recipe: dict[str, Any], notes: dict[str, Any] | None = None
    ) -> None:
        if problem := layout.problem():
            raise UserError(f"{url}: this {kind} cannot be laid out: {problem}")
        self.url, self.kind, self.layout, self.recipe, self.notes = url, kind, layout, recipe, notes or {}
        self._plan = {
            "kind": kind,
            "format_version": FORMAT_VERSION,
            "layout": layout.as_json(),
            "recipe": recipe,
            "notes": self.notes,
        }
        self.key = plan_key(self._plan)

    @classmethod
    def planned(cls, url: str) -> ShardWriter:
        """The writer of a store that was begun: what workers and ``finalise`` use.

        Raises:
            UserError: nothing was begun there, or by another version. IntegrityError: the plan is damaged.
        """
        location = join(url, PLAN)
        if not exists(location):
            raise UserError(f"{location}: missing; no store was begun at {url}, check the path")
        plan = read_json(location)
        if plan.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{location}: key 'format_version' is {plan.get('format_version')!r}, this version writes "
                f"{FORMAT_VERSION}; make the store again in another place"
            )
        try:
            layout = TypeAdapter(Layout).validate_python(plan["layout"])
            writer = cls(url, plan["kind"], layout, plan["recipe"], plan["notes"])
        except (ValidationError, KeyError, TypeError) as error:
            raise IntegrityError(f"{location}: is damaged ({error}); make the store again in another place") from None
        if writer.key != plan.get("key"):
            raise IntegrityError(f"{location}: does not fit its own key; it was edited, make the store again elsewhere")
        return writer

    def shard_key(self, index: int) -> str:
        """What identifies a shard: everything that decides its content, and its place."""
        return shard_key(self.key, index)

    def prepare(self) -> None:
        """Create the store, or accept the one that is there if it has the same plan, or the same with fewer draws.

        Raises:
            UserError: the place holds another store, or files that are no store.
        """
        there = begin(self.url, PLAN, self._plan, self.key)
        if there is None:
            return
        repeats, started = self.layout.repeats or 1, there["layout"]["repeats"] or 1
        if repeats > started:  # what is published of fewer draws stays so until the new record replaces it
            write_json(join(self.url, PLAN), self._plan | {"key": self.key})
        elif repeats < started:
            raise UserError(
                f"{self.url}: holds {started} draws of each clean image, {repeats} asked for; it contains those "
                f"(column 'draw' below {repeats}), so use it as it is or choose another output"
            )

    def done(self, index: int, *, sizes_only: bool = False) -> bool:
        """Whether the shard is published whole: its part and its objects' checksums hold.

        ``sizes_only``: of the objects only the sizes are looked at, for stores that are too large to read again.
        """
        location = join(self.url, part_name(index))
        content = read_if_whole(location)
        facts = None if content is None else is_whole(content, location, self.shard_key(index))
        objects = self.layout.objects(index)
        if facts is None or set(facts.objects) != set(objects):
            return False
        return all(self._holds(join(self.url, objects[name]), fact, sizes_only) for name, fact in facts.objects.items())

    @staticmethod
    def _holds(location: str, fact: dict[str, Any], sizes_only: bool) -> bool:
        if sizes_only:
            return bool(size_if_there(location) == fact["bytes"])
        content = read_if_whole(location)
        return content is not None and sha256(content) == fact["sha256"]

    def write(
        self, index: int, chunks: Mapping[str, Sequence[bytes]], table: pa.Table, sums: dict[str, Any] | None = None
    ) -> None:
        """Publish one whole shard: its objects, then its part. ``chunks`` are images encoded by the layout's codec."""
        rows, locations = self.layout.rows(index), self.layout.objects(index)
        # One writer per shard, one write per shard: partial writes of shared shards lose data silently.
        assert set(chunks) == set(locations), sorted(chunks)
        assert {len(images) for images in chunks.values()} == {len(rows)}, (len(rows), "a whole shard or nothing")
        assert table.num_rows == len(rows)
        objects = {}
        for name, images in chunks.items():
            content = assemble(images, self.layout.shard)
            write_inside(self.url, locations[name], content)
            objects[name] = {
                "sha256": sha256(content),
                "index_sha256": sha256(content[-index_size(self.layout.shard) :]),
                "bytes": len(content),
            }
        facts = Facts(self.shard_key(index), rows_digest(table), objects, sums or {})
        write_inside(self.url, part_name(index), encode_part(table, facts))

    def part(self, index: int) -> tuple[bytes, pa.Table, Facts]:
        """A published part: its file, its rows, its facts.

        Raises:
            UserError: it is missing. IntegrityError: it is damaged, or belongs to another plan.
        """
        location = join(self.url, part_name(index))
        content = read_bytes(location)
        table, facts = decode_part(content, location)
        if facts.shard != self.shard_key(index):
            raise IntegrityError(f"{location}: belongs to another {self.kind}; two runs wrote to one place")
        return content, table, facts

    def image(self, pair: int, array: str) -> Pixels:
        """One image of a published shard, for pictures of a store before it is committed.

        Raises:
            IntegrityError: it is damaged.
        """
        index, position = self.layout.location(pair, array)
        location = join(self.url, self.layout.objects(index)[array])
        total, size = file_size(location), index_size(self.layout.shard)

        def entries(_: int, content: bytes) -> list[tuple[int, int] | None]:
            with _damage_at(location):
                return read_index(content, self.layout.shard, total - size)

        def decoded(_: int, content: bytes) -> Pixels:
            with _damage_at(location):
                return self.layout.codec.decode(content)

        entry = read_ranges([ByteRange(location, total - size, total)], entries)[0][position]
        if entry is None:
            raise IntegrityError(f"{location}: is damaged (slot {position} is absent); run the same command again")
        return read_ranges([ByteRange(location, *entry)], decoded)[0]

    def require_parts(self) -> None:
        """Raise a UserError that names the parts that are missing."""
        there = set(list_files(join(self.url, "parts")))
        names = [part_name(index) for index in range(self.layout.shards)]
        refuse_missing(self.url, [name for name in names if name.removeprefix("parts/") not in there], len(names))

    def commit(self, name: str, model: type[Record], record: dict[str, Any]) -> Record:
        """Write the arrays' metadata and the commit record, the record last; returns it.

        Raises:
            UserError: shards are missing.
        """
        self.require_parts()
        parts = []
        for index in range(self.layout.shards):
            content, _, facts = self.part(index)
            parts.append({"part": part_name(index), "sha256": sha256(content), "objects": facts.objects})
        return self.record(name, model, record | {"parts": parts, "digest": content_key([self.key, parts])})

    def record(self, name: str, model: type[Record], record: dict[str, Any], *, arrays: bool = True) -> Record:
        """Write arrays' metadata and the commit record, once all shards are known to be there.

        ``arrays``: False for a store that will have none.
        """
        sweep(self.url)
        documents = self.layout.documents() if arrays else {}
        for location, content in documents.items():
            write_inside(self.url, location, content)
        whole = record | {
            "kind": self.kind,
            "format_version": FORMAT_VERSION,
            "layout": self.layout.as_json(),
            "recipe": self.recipe,
            "packages": packages(),
            "arrays": {location: sha256(content) for location, content in documents.items()},
        }
        whole["record_sha256"] = content_key(whole)
        checked = model.model_validate(whole)  # the printed schema is true of what is written
        write_json(join(self.url, name), whole)
        return checked


@contextmanager
def _damage_at(location: str) -> Iterator[None]:
    try:
        yield
    except DamagedShard as error:
        raise IntegrityError(f"{location}: is damaged ({error}); run the same command again") from None


def refuse_missing(url: str, missing: Sequence[str], total: int) -> None:
    """Raise a UserError that names parts that are not there or not whole; nothing happens when there are none."""
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"{url}: {len(missing)} of {total} parts are missing or damaged: {', '.join(missing[:_SHOWN])}{more}; "
            "run the command that makes them again (with the same --parts, if it was shared out), then finish"
        )
