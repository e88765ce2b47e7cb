"""The prompt bank: prompts of many references without their images (docs/formats/prompt-bank.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pngmodel.errors import IntegrityError, UserError
from pngmodel.jsontext import decode_json
from tasks.runtime.provenance import content_key
from tasks.stores.commits import open_commit
from tasks.stores.io.filesystem import exists, join, read_bytes, read_json, sha256
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.io.relative_path import RelativePath
from tasks.stores.io.tables import decode_table
from tasks.stores.layout import PLAN

COMMIT, TABLE = "bank.json", "bank.parquet"
KIND = "prompt bank"
FORMAT_VERSION = 1
_SHA256 = "sha256, hexadecimal"
_GROUPS = ("prompts", "moments")
_LENGTH_BYTES = 8  # a safetensors file: the length of its header, the header, the tensors

SCHEMA = pa.schema(
    [
        ("entry", pa.int64()),
        ("id", pa.string()),
        ("dataset", pa.string()),
        ("scene", pa.string()),
        ("image", pa.string()),
        ("camera", pa.string()),
        ("iso", pa.int32()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("content", pa.string()),
        ("model", pa.string()),
        ("sha256", pa.string()),
    ]
)
"""One row per reference, in the order of their source. ``content`` identifies the reference's pixels, ``model`` the
generator that read it, ``sha256`` the prompts (see :func:`entry_digest`)."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one reference."""

    prompts: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    """Its mean and std against intensity (``knots``, ``values``): what a corpus' ``expected_std`` is made of."""

    def tensors(self) -> dict[str, Tensor]:
        """All of them, ``prompts/NAME`` and ``moments/NAME``, sorted."""
        groups = zip(_GROUPS, (self.prompts, self.moments), strict=True)
        return dict(
            sorted((f"{group}/{name}", tensor) for group, members in groups for name, tensor in members.items())
        )


class BankShard(BaseModel):
    """One safetensors file."""

    model_config = ConfigDict(extra="forbid")

    file: RelativePath = Field(description="path in the bank")
    entries: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(description=f"{_SHA256}, of the file")
    header_bytes: int = Field(ge=1, description="length prefix and header; tensors begin there")
    header_sha256: str = Field(description=f"{_SHA256}, of these bytes")


class PromptBankRecord(BaseModel):
    """bank.json, the commit record of a prompt bank."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["pngnoise-prompt-bank"]
    format_version: Literal[1]
    kind: Literal["prompt bank"]
    entries: int = Field(ge=1)
    shard: int = Field(ge=1, description="entries per shard; the last one may hold fewer")
    model: str = Field(description="digest of the generator that the prompts are for")
    recipe: dict[str, Any] = Field(description="everything that decides the content")
    licence: str = Field(description="licences of the references, separated by '; '")
    packages: dict[str, str] = Field(description="versions of what decides the bytes")
    shards: list[BankShard]
    table_sha256: str = Field(description=f"{_SHA256}, of {TABLE}")
    digest: str = Field(description="over plan, shards and table: equal content has equal digests")
    record_sha256: str = Field(description=f"{_SHA256}, of this record without this key: JSON, sorted keys, no spaces")


def shard_file(index: int) -> str:
    """Path of a shard in its bank."""
    return f"shards/{index:05d}.safetensors"


def entry_digest(entry: Entry) -> str:
    """sha256 over name, shape and little-endian float32 values of every tensor, in order of names."""
    content = b"".join(
        f"{name} {list(tensor.shape)} ".encode() + _bytes(tensor) for name, tensor in entry.tensors().items()
    )
    return sha256(content)


def _bytes(tensor: Tensor) -> bytes:
    assert tensor.dtype == torch.float32, tensor.dtype  # the digest and the ranges of a reader rely on one dtype
    return bytes(tensor.contiguous().numpy().astype("<f4").tobytes())


def encode_shard(entries: Sequence[Entry], first: int, key: str) -> bytes:
    """A safetensors file of consecutive entries; ``key`` is the plan that they belong to."""
    tensors = {
        f"{first + k:08d}/{name}": tensor.contiguous()
        for k, entry in enumerate(entries)
        for name, tensor in entry.tensors().items()
    }
    # One key only: the library writes several in random order.
    facts = json.dumps({"plan": key, "sha256": [entry_digest(entry) for entry in entries]})
    return save(tensors, {"pngnoise": facts})


def header(content: bytes) -> tuple[dict[str, Any], int]:
    """Header of a safetensors file, and where its tensors begin.

    Raises:
        ValueError: it has none.
    """
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < max(end, _LENGTH_BYTES + 2):
        raise ValueError("is shorter than its header")
    found = decode_json(content[_LENGTH_BYTES:end])
    if not isinstance(found, dict):
        raise ValueError("its header is no JSON object")
    return found, end


def shard_digests(content: bytes, first: int, key: str) -> list[str] | None:
    """Digests of the entries of a shard that belongs to plan ``key`` and is undamaged, else None."""
    try:
        facts = decode_json(header(content)[0]["__metadata__"]["pngnoise"].encode())
        plan, expected = facts["plan"], list(facts["sha256"])
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
    names: dict[str, dict[str, Tensor]] = {f"{first + k:08d}": {} for k in range(len(expected))}
    for name, tensor in tensors.items():
        number, _, rest = name.partition("/")
        names.setdefault(number, {})[rest] = tensor
    if plan != key or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        return None
    found = [entry_digest(_entry(members)) for members in names.values()]
    return found if found == expected else None


def _entry(tensors: Mapping[str, Tensor]) -> Entry:
    groups = ({n.removeprefix(f"{g}/"): t for n, t in tensors.items() if n.startswith(f"{g}/")} for g in _GROUPS)
    return Entry(*groups)


class PromptBank:
    """Reads a committed bank: an entry is one ranged read, checked against its digest."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.record = _record(url)
        self._table: list[dict[str, Any]] | None = None
        self._headers: dict[int, dict[str, Any]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table, row i describing entry i.

        Raises:
            IntegrityError: it is not the one that was committed.
        """
        if self._table is None:
            location = join(self.url, TABLE)
            content = read_bytes(location)
            if sha256(content) != self.record.table_sha256:
                raise IntegrityError(f"{location}: sha256 differs from {COMMIT}; the bank is damaged, make it again")
            rows = decode_table(content, location, SCHEMA).to_pylist()
            if len(rows) != self.record.entries:
                raise IntegrityError(
                    f"{location}: has {len(rows)} rows, {COMMIT} says {self.record.entries}; make it again"
                )
            self._table = rows
        return self._table

    def read(self, entry: int) -> Entry:
        """One entry.

        Raises:
            UserError: there is none of that number. IntegrityError: it is not what was written.
        """
        if not 0 <= entry < self.record.entries:
            raise UserError(f"{self.url}: there is no entry {entry}; it holds {self.record.entries}")
        shard = entry // self.record.shard
        try:
            found = self._entry(shard, entry)
        except (ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
            raise self._damaged(shard, f"entry {entry} cannot be read: {error}") from None
        if not all(bool(torch.isfinite(tensor).all()) for tensor in found.tensors().values()):
            raise IntegrityError(
                f"{self._location(shard)}: entry {entry} holds NaN or infinite prompts; make the bank again"
            )
        return found

    def _entry(self, shard: int, entry: int) -> Entry:
        prefix, expected = f"{entry:08d}/", self.rows[entry]["sha256"]
        start = self.record.shards[shard].header_bytes
        facts = {n.removeprefix(prefix): f for n, f in self._header(shard).items() if n.startswith(prefix)}
        ranges = [fact["data_offsets"] for fact in facts.values()]
        first, last = min(s for s, _ in ranges), max(e for _, e in ranges)

        def decoded(_: int, content: bytes) -> Entry:
            tensors = {
                name: torch.frombuffer(
                    bytearray(content[fact["data_offsets"][0] - first : fact["data_offsets"][1] - first]),
                    dtype=torch.float32,
                ).reshape(fact["shape"])
                for name, fact in facts.items()
            }
            found = _entry(tensors)
            if entry_digest(found) != expected:
                raise self._damaged(shard, f"entry {entry} has another sha256")
            return found

        return read_ranges([ByteRange(self._location(shard), start + first, start + last)], decoded)[0]

    def _location(self, shard: int) -> str:
        return join(self.url, self.record.shards[shard].file)

    def _header(self, shard: int) -> dict[str, Any]:
        if shard not in self._headers:
            fact = self.record.shards[shard]

            def checked(_: int, content: bytes) -> dict[str, Any]:
                if sha256(content) != fact.header_sha256:
                    raise self._damaged(shard, "its header has another sha256")
                try:
                    return header(content)[0]
                except ValueError as error:
                    raise self._damaged(shard, str(error)) from None

            self._headers[shard] = read_ranges([ByteRange(self._location(shard), 0, fact.header_bytes)], checked)[0]
        return self._headers[shard]

    def _damaged(self, shard: int, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self._location(shard)}: is damaged ({what}); `pngnoise verify {self.url}` lists all damage, the command "
            "that made the bank mends it"
        )

    def verify(self) -> Iterator[str]:
        """Check every file against the commit record; yields one line per problem, none when all is well."""
        raw = read_json(join(self.url, COMMIT))
        if content_key({k: v for k, v in raw.items() if k != "record_sha256"}) != self.record.record_sha256:
            yield f"{join(self.url, COMMIT)}: does not fit its own digest; it was edited"
        plan = join(self.url, PLAN)
        key = read_json(plan).get("key") if exists(plan) else None
        if key is None or bank_digest(str(key), self.record.shards, self.record.table_sha256) != self.record.digest:
            yield f"{plan}: missing, or not the plan of this bank"
        wanted = {shard.file: shard.sha256 for shard in self.record.shards} | {TABLE: self.record.table_sha256}
        for name, expected in wanted.items():
            location = join(self.url, name)
            if not exists(location):
                yield f"{location}: missing"
            elif sha256(read_bytes(location)) != expected:
                yield f"{location}: sha256 differs from {COMMIT}"


def bank_digest(key: str, shards: Sequence[BankShard], table_sha256: str) -> str:
    """Digest of a whole bank."""
    return content_key([key, [shard.model_dump() for shard in shards], table_sha256])


def _record(url: str) -> PromptBankRecord:
    record = open_commit(
        url,
        COMMIT,
        PromptBankRecord,
        FORMAT_VERSION,
        absent="not a (finished) prompt bank; make one with `pngnoise prompts`",
        remedy="run `pngnoise prompts` again, in another place",
    )
    if sum(s.entries for s in record.shards) != record.entries or len(record.shards) != -(
        -record.entries // record.shard
    ):
        raise IntegrityError(f"{join(url, COMMIT)}: its shards do not hold its entries; make the bank again")
    return record
