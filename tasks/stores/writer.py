"""Writes a sharded store of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import PLAN, PartWriter
from tasks.stores.io.filesystem import exists, file_size, join, read_json, sha256, write_inside, write_json
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.layout import FORMAT_VERSION, Layout
from tasks.stores.records import ImageStoreRecord
from tasks.stores.shard_file import DamagedShard, Pixels, assemble, index_size, read_index

Record = TypeVar("Record", bound=ImageStoreRecord)


class ShardWriter(PartWriter):
    """Writes one store of images; a part is a shard.

    ``notes`` belong to the plan but do not determine content: facts that later steps need and cannot recompute.
    """

    def __init__(
        self, url: str, kind: str, layout: Layout, recipe: dict[str, Any], notes: dict[str, Any] | None = None
    ) -> None:
        if problem := layout.problem():
            raise UserError(f"{url}: this {kind} has an impossible layout: {problem}")
        self.layout, self.recipe, self.notes = layout, recipe, notes or {}
        plan = {"kind": kind, "format_version": FORMAT_VERSION, "layout": layout.as_json(), "recipe": recipe}
        super().__init__(url, plan | {"notes": self.notes})

    @classmethod
    def planned(cls, url: str) -> ShardWriter:
        """The writer of a store whose plan exists, for workers and ``finalise``.

        Raises:
            UserError: there is no plan, or it is of another version. IntegrityError: it is damaged.
        """
        location = join(url, PLAN)
        if not exists(location):
            raise UserError(f"{location}: missing; no store was started at {url}, check the path")
        plan = read_json(location)
        if plan.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{location}: format_version is {plan.get('format_version')!r}, this release writes {FORMAT_VERSION}; "
                "make the store again in another location"
            )
        try:
            layout = TypeAdapter(Layout).validate_python(plan["layout"])
            writer = cls(url, plan["kind"], layout, plan["recipe"], plan["notes"])
        except (ValidationError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{location}: is damaged ({error}); make the store again in another location"
            ) from None
        if writer.key != plan.get("key"):
            raise IntegrityError(f"{location}: does not match its key; it was edited, make the store again elsewhere")
        return writer

    def prepare(self) -> None:
        """Create the store, or accept an existing one with the same plan or with fewer repeats.

        Raises:
            UserError: the location holds a different store, or files that are not a store.
        """
        existing = self.begin()
        if existing is None:
            return
        requested, there = self.layout.repeats or 1, existing["layout"]["repeats"] or 1
        if requested > there:  # the published corpus stays until the new record replaces it
            write_json(join(self.url, PLAN), self.plan | {"key": self.key})
        elif requested < there:
            raise UserError(
                f"{self.url}: holds {there} samples of each clean image, {requested} requested; it contains those "
                f"(column 'repeat' below {requested}), so use it as it is or choose another output"
            )

    def write(
        self, index: int, chunks: Mapping[str, Sequence[bytes]], table: pa.Table, sums: dict[str, Any] | None = None
    ) -> None:
        """Publish one whole shard. ``chunks``: by array, the images encoded by the layout's codec."""
        rows, paths = self.layout.rows(index), self.layout.objects(index)
        # One writer per shard, one write per shard: partial writes of shared shards lose data silently.
        assert set(chunks) == set(paths), sorted(chunks)
        assert {len(images) for images in chunks.values()} == {len(rows)}, (len(rows), "a shard is written whole")
        assert table.num_rows == len(rows)
        objects: dict[str, Any] = {}
        for name, images in chunks.items():  # one at a time: each may have a hundred megabytes
            objects |= self.write_objects({paths[name]: assemble(images, self.layout.shard)})
        self.write_part(index, table, objects, sums)

    def image(self, pair: int, array: str) -> Pixels:
        """One image of a published shard, before the store is committed.

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

    def commit_images(
        self, name: str, model: type[Record], record: Mapping[str, Any], *, arrays: bool = True
    ) -> Record:
        """Write the metadata of the arrays and the commit record, once all shards exist.

        ``arrays``: False for a store without arrays.
        """
        documents = self.layout.documents() if arrays else {}
        for path, content in documents.items():
            write_inside(self.url, path, content)
        digests = {path: sha256(content) for path, content in documents.items()}
        facts = {"layout": self.layout.as_json(), "recipe": self.recipe, "arrays": digests}
        return self.commit(name, model, dict(record) | facts)


@contextmanager
def _damage_at(location: str) -> Iterator[None]:
    try:
        yield
    except DamagedShard as error:
        raise IntegrityError(f"{location}: is damaged ({error}); run the same command again") from None
