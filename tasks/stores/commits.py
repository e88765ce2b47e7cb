"""Commit and resume, the same for every store: patches, prompts, corpora, exports.

    plan.json               what is being made; written first, a different plan at the same location is refused
    <objects>               images, prompts, exported files
    parts/00000.parquet     one per part, after its objects: their sha256 and sizes, and the part's rows
    <commit>.json           the record of the whole store; written last, a store without it is not readable

A part is done when it belongs to the same plan and its objects have the recorded digests. To resume, run the same
command again: parts that are done are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pngmodel.errors import IntegrityError, UserError
from pngmodel.jsontext import decode_json
from tasks.runtime.provenance import content_key, packages
from tasks.stores.io.filesystem import (
    create_bytes,
    encode_json,
    exists,
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
from tasks.stores.io.read_ranges import file_sha256
from tasks.stores.io.relative_path import RelativePath
from tasks.stores.io.tables import decode_table, encode_table

PLAN = "plan.json"
SIGNATURE = "signature.json"
"""A signature beside a commit record (:mod:`tasks.corpus.signatures`); not part of any digest."""
SHA256 = "sha256, hexadecimal"
_FACTS = b"pngnoise.part"
_AT_ONCE = 256 << 20  # bytes of an object that is read whole to compute its digest
_SHOWN_FILES = 3
_SHOWN_PARTS = 10
_SHOWN_KEY = 200  # characters; the key comes from a file that anyone may have written
Model = TypeVar("Model", bound=BaseModel)
Record = TypeVar("Record", bound="CommitRecord")


class StrictModel(BaseModel):
    """A part of a record: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class ObjectFact(StrictModel):
    """One object or file."""

    sha256: str = Field(description=f"{SHA256}, of the content")
    bytes: int = Field(ge=0, description="size")


class Part(StrictModel):
    """One part of a store."""

    part: RelativePath = Field(description="path of its Parquet table in the store")
    sha256: str = Field(description=f"{SHA256}, of that table's file")
    objects: dict[RelativePath, ObjectFact] = Field(description="by path in the store")


class CommitRecord(StrictModel):
    """What the commit records of all stores have in common."""

    kind: str
    format_version: int
    licence: str = Field(description="licences of the sources, separated by '; '")
    packages: dict[str, str] = Field(description="versions of the packages that determine the bytes")
    digest: str = Field(description="over plan and parts: equal content has equal digests")
    record_sha256: str = Field(description=f"{SHA256}, of this record without this key: JSON, sorted keys, no spaces")


class PartsRecord(CommitRecord):
    """A record that lists its parts. A corpus has too many and keeps them in tables."""

    parts: list[Part] = Field(description="in order")


_OBJECTS = TypeAdapter(dict[RelativePath, ObjectFact])


@dataclass(frozen=True)
class PartFacts:
    """Metadata of a part's table."""

    key: str
    """Identifies the part: plan and index."""
    objects: dict[str, ObjectFact]
    """By path in the store."""
    sums: dict[str, Any] = field(default_factory=dict)
    """Sums from which the statistics of the store are computed."""


def encode_part(table: pa.Table, facts: PartFacts) -> bytes:
    """Parquet file of a part: its rows, with the facts in the schema metadata."""
    content = {"key": facts.key, "sums": facts.sums}
    content |= {"objects": {path: fact.model_dump() for path, fact in facts.objects.items()}}
    return encode_table(table.replace_schema_metadata({_FACTS: json.dumps(content, sort_keys=True).encode()}))


def decode_part(content: bytes, location: str) -> tuple[pa.Table, PartFacts]:
    """Rows and facts of a part.

    Raises:
        IntegrityError: the file is damaged or has another format; names ``location``.
    """
    try:
        table = decode_table(content, location)
        found = decode_json((table.schema.metadata or {})[_FACTS])
        objects = _OBJECTS.validate_python(found["objects"])
        facts = PartFacts(str(found["key"]), objects, dict(found["sums"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{location}: is damaged ({error}); run the same command again") from None
    return table.replace_schema_metadata(None), facts


def part_name(index: int) -> str:
    """Path of a part in its store."""
    return f"parts/{index:05d}.parquet"


def plan_key(plan: Mapping[str, Any]) -> str:
    """Digest of a plan, with or without its ``key``.

    The number of repeats of a corpus is excluded: a corpus with more repeats is the same corpus, extended.
    """
    content = {name: value for name, value in plan.items() if name != "key"}
    layout = content.get("layout")
    if isinstance(layout, dict) and layout.get("repeats"):
        content["layout"] = layout | {"pairs": layout["pairs"] // layout["repeats"], "repeats": 1}
    return content_key(content)


class PartWriter:
    """Writes one store part by part. Several processes may write different parts at the same time."""

    def __init__(self, url: str, plan: Mapping[str, Any], *, folder: str = "") -> None:
        """
        Args:
            url: folder or prefix of the store.
            plan: JSON-able; everything that determines the content, with ``kind`` and ``format_version``.
            folder: subfolder of plan and parts, with a trailing slash, where users see the store's files.
        """
        self.url, self.plan, self.folder = url, dict(plan), folder
        self.kind: str = self.plan["kind"]
        self.key = plan_key(self.plan)

    def part_key(self, index: int) -> str:
        """Identifies a part: everything that determines its content, and its index."""
        return hashlib.sha256(f"{self.key} {index}".encode()).hexdigest()

    def part_path(self, index: int) -> str:
        """Path of a part in the store."""
        return self.folder + part_name(index)

    def begin(self) -> dict[str, Any] | None:
        """Write the plan, or accept the equal plan that exists and return it.

        Raises:
            UserError: the location holds a different store, or files that are not a store.
        """
        location = join(self.url, self.folder + PLAN)
        if not exists(location):
            found = [f for f in list_files(self.url) if not f.rpartition("/")[2].startswith(".")]
            # Another process may have written the plan since; of two writers exactly one creates it.
            if found and not exists(location):
                raise UserError(
                    f"{self.url}: is not empty (it holds {', '.join(found[:_SHOWN_FILES])}) and is not a {self.kind}; "
                    "choose an empty output"
                )
            if not found and create_bytes(location, encode_json(self.plan | {"key": self.key})):
                return None
        existing = read_json(location)
        if existing.get("key") == self.key:
            return existing
        if existing.get("kind") != self.kind:
            raise UserError(
                f"{self.url}: holds a {existing.get('kind', 'store')}, not a {self.kind}; choose another output"
            )
        raise UserError(
            f"{self.url}: holds a different {self.kind}; different settings: {_differences(existing, self.plan)}. "
            "Choose another output, or delete that folder if it is no longer needed"
        )

    def done(self, index: int, *, sizes_only: bool = False) -> bool:
        """Whether a part is complete: its table belongs to this plan and its objects have the recorded digests.

        ``sizes_only`` compares the sizes of the objects only, for stores that are too large to read again.
        """
        location = join(self.url, self.part_path(index))
        content = read_if_whole(location)
        if content is None:
            return False
        try:
            facts = decode_part(content, location)[1]
        except IntegrityError:
            return False
        if facts.key != self.part_key(index):
            return False
        return all(_holds(join(self.url, path), fact, sizes_only) for path, fact in facts.objects.items())

    def write_objects(self, objects: Mapping[str, bytes]) -> dict[str, ObjectFact]:
        """Publish objects by path in the store; returns their facts."""
        for path, content in objects.items():
            write_inside(self.url, path, content)
        return {path: ObjectFact(sha256=sha256(content), bytes=len(content)) for path, content in objects.items()}

    def write_part(
        self, index: int, table: pa.Table, objects: Mapping[str, ObjectFact], sums: dict[str, Any] | None = None
    ) -> None:
        """Publish a part whose objects exist already."""
        facts = PartFacts(self.part_key(index), dict(objects), sums or {})
        write_inside(self.url, self.part_path(index), encode_part(table, facts))

    def part(self, index: int) -> tuple[bytes, pa.Table, PartFacts]:
        """A published part: its file, its rows, its facts.

        Raises:
            UserError: it is missing. IntegrityError: it is damaged, or belongs to another plan.
        """
        location = join(self.url, self.part_path(index))
        content = read_bytes(location)
        table, facts = decode_part(content, location)
        if facts.key != self.part_key(index):
            raise IntegrityError(f"{location}: belongs to another {self.kind}; two runs wrote to the same location")
        return content, table, facts

    def require_parts(self, count: int) -> None:
        """Raise a UserError that names the missing parts of ``count``."""
        found = set(list_files(join(self.url, f"{self.folder}parts")))
        names = [part_name(index) for index in range(count)]
        refuse_missing(self.url, [name for name in names if name.removeprefix("parts/") not in found], count)

    def list_parts(self, count: int) -> list[Part]:
        """The parts as a commit record lists them.

        Raises:
            UserError: parts are missing. IntegrityError: a part is damaged.
        """
        self.require_parts(count)
        parts = []
        for index in range(count):
            content, _, facts = self.part(index)
            parts.append(Part(part=self.part_path(index), sha256=sha256(content), objects=facts.objects))
        return parts

    def commit(self, name: str, model: type[Record], record: Mapping[str, Any]) -> Record:
        """Write the commit record ``name``; returns it.

        Args:
            name: file of the record.
            model: validates the record, so that the published JSON schema is true.
            record: its keys, without those that every record has.
        """
        sweep(self.url)
        found = dict(record)
        if "parts" in found:
            found["parts"] = [part.model_dump() for part in found["parts"]]
            found.setdefault("digest", parts_digest(self.key, found["parts"]))
        found |= {"kind": self.kind, "format_version": self.plan["format_version"], "packages": packages()}
        found["record_sha256"] = content_key(found)
        checked = model.model_validate(found)
        write_json(join(self.url, name), found)
        return checked


def parts_digest(key: str | None, parts: Sequence[BaseModel | dict[str, Any]]) -> str:
    """Digest of a store that lists its parts."""
    return content_key([key, [part.model_dump() if isinstance(part, BaseModel) else part for part in parts]])


def _holds(location: str, fact: ObjectFact, sizes_only: bool) -> bool:
    if sizes_only:
        return size_if_there(location) == fact.bytes
    if fact.bytes > _AT_ONCE:
        return size_if_there(location) == fact.bytes and file_sha256(location) == fact.sha256
    content = read_if_whole(location)
    return content is not None and sha256(content) == fact.sha256


def refuse_missing(url: str, missing: Sequence[str], total: int) -> None:
    """Raise a UserError that names parts that are missing or damaged; do nothing if there are none."""
    if missing:
        more = f" and {len(missing) - _SHOWN_PARTS} more" if len(missing) > _SHOWN_PARTS else ""
        raise UserError(
            f"{url}: {len(missing)} of {total} parts are missing or damaged: {', '.join(missing[:_SHOWN_PARTS])}"
            f"{more}; run the command that makes them again (with the same --parts, if used), then finalise"
        )


def read_record(location: str, model: type[Model], version: int, *, remedy: str) -> Model:
    """A record of a known format version, validated.

    Args:
        location: file or URL.
        model: of the record.
        version: the format version that this release reads.
        remedy: how to get a record of this version.

    Raises:
        UserError: it is missing, or of another version. IntegrityError: it is damaged.
    """
    content = read_json(location)
    found: Any = content.get("format_version")
    if isinstance(found, int) and found != version:
        advice = "update pngnoise" if found > version else remedy
        raise UserError(f"{location}: format_version is {found}, this release reads {version}; {advice}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))[:_SHOWN_KEY] or "the record"
        raise IntegrityError(f"{location}: key '{key}': {first['msg']}; it is damaged, {remedy}") from None


def open_commit(
    url: str, name: str, model: type[Model], version: int, *, absent: str | Callable[[], str], remedy: str
) -> Model:
    """The commit record ``name`` of the store at ``url`` (:func:`read_record`); ``absent`` explains a missing one."""
    location = join(url, name)
    if not exists(location):
        raise UserError(f"{location}: missing: {absent if isinstance(absent, str) else absent()}")
    return read_record(location, model, version, remedy=remedy)


def commit_problems(url: str, name: str, record: CommitRecord, digest: str) -> Iterator[str]:
    """Problems of a commit record itself: it was edited, or does not belong to the plan.

    ``digest`` is the store's digest, recomputed from its plan and parts.
    """
    content = read_json(join(url, name))
    if content_key({k: v for k, v in content.items() if k != "record_sha256"}) != record.record_sha256:
        yield f"{join(url, name)}: does not match its own digest; it was edited"
    if digest != record.digest:
        yield f"{join(url, name)}: its digest does not match plan and parts; one of them is missing or was edited"


def object_problem(location: str, expected: str) -> Iterator[str]:
    """The problem of one file, if any: missing, or another sha256 than ``expected``."""
    try:
        size = size_if_there(location)
        digest = None if size is None else file_sha256(location) if size > _AT_ONCE else sha256(read_bytes(location))
    except IntegrityError as error:
        yield str(error)
        return
    if digest is None:
        yield f"{location}: missing"
    elif digest != expected:
        yield f"{location}: sha256 differs from the commit record"


def part_problems(url: str, part: Part) -> Iterator[str]:
    """The problems of a part and its objects."""
    yield from object_problem(join(url, part.part), part.sha256)
    for path, fact in part.objects.items():
        yield from object_problem(join(url, path), fact.sha256)


def stored_plan_key(url: str, folder: str = "") -> str | None:
    """The key of the plan at ``url``, recomputed; None if there is no valid plan."""
    try:
        return plan_key(decode_json(read_bytes(join(url, folder + PLAN))))
    except (UserError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _differences(existing: dict[str, Any], requested: dict[str, Any]) -> str:
    """The first keys that differ, with both values."""
    new, old = _flat(requested), _flat(existing)
    keys = [k for k in sorted(new | old) if k != "key" and new.get(k) != old.get(k)]
    changes = (f"{k} ({_short(old.get(k))} exists, {_short(new.get(k))} requested)" for k in keys[:_SHOWN_FILES])
    return ", ".join(changes) or "its key"


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
