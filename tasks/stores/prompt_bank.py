"""The prompt bank: prompts of many references without their images (docs/formats/prompt-bank.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import (
    PartsRecord,
    PartWriter,
    commit_problems,
    decode_part,
    open_commit,
    part_problems,
    parts_digest,
    stored_plan_key,
)
from tasks.stores.io.filesystem import join, read_bytes, sha256
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.kinds import COMMITS

COMMIT = COMMITS["prompt bank"]
KIND = "prompt bank"
FORMAT_VERSION = 2
_GROUPS = ("prompts", "moments")

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
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""One row per reference. ``content`` identifies the pixels of the reference, ``model`` the generator that extracted the
prompts; bytes ``start`` to ``stop`` of the part's object are the entry, with this ``sha256``."""


@dataclass(frozen=True)
class Entry:
    """Everything that is stored of one reference."""

    prompts: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    """Mean and std of the noise against intensity (``knots``, ``values``); they give ``expected_std`` of a corpus."""


class PromptBankRecord(PartsRecord):
    """bank.json, the commit record of a prompt bank."""

    format: Literal["pngnoise-prompt-bank"]
    format_version: Literal[2]
    kind: Literal["prompt bank"]
    entries: int = Field(ge=1)
    shard: int = Field(ge=1, description="entries per part; the last one may hold fewer")
    model: str = Field(description="digest of the generator that the prompts are for")
    recipe: dict[str, Any] = Field(description="everything that determines the content")


def encode_entry(entry: Entry) -> bytes:
    """A safetensors file of one entry, tensors ``prompts/NAME`` and ``moments/NAME``, float32."""
    groups = zip(_GROUPS, (entry.prompts, entry.moments), strict=True)
    tensors = {f"{group}/{name}": tensor.contiguous() for group, members in groups for name, tensor in members.items()}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values()), "prompts are float32"
    return save(dict(sorted(tensors.items())))


def decode_entry(content: bytes) -> Entry:
    """The entry in a safetensors file.

    Raises:
        ValueError: it is damaged, or its tensors are not finite float32.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a safetensors file ({error})") from None
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor {name!r:.80} is not finite float32")
    groups = ({n.removeprefix(f"{g}/"): t for n, t in tensors.items() if n.startswith(f"{g}/")} for g in _GROUPS)
    return Entry(*groups)


def bank_writer(url: str, plan: Mapping[str, Any]) -> PartWriter:
    """The writer of the bank at ``url``; ``plan`` is everything that determines its content."""
    return PartWriter(url, {"kind": KIND, "format_version": FORMAT_VERSION, **plan})


def write_entries(writer: PartWriter, index: int, rows: Sequence[dict[str, Any]], entries: Sequence[Entry]) -> None:
    """Publish one part of a bank: the entries in one object, and their rows."""
    blobs = [encode_entry(entry) for entry in entries]
    start, described = 0, []
    for row, blob in zip(rows, blobs, strict=True):
        described.append(row | {"start": start, "stop": start + len(blob), "sha256": sha256(blob)})
        start += len(blob)
    objects = writer.write_objects({f"prompts/{index:05d}.bin": b"".join(blobs)})
    writer.write_part(index, pa.Table.from_pylist(described, SCHEMA), objects)


class PromptBank:
    """Reads a committed bank. An entry is one ranged read, checked against its digest."""

    def __init__(self, url: str) -> None:
        """Raises UserError when there is no bank, or it is of another version."""
        self.url = url
        self.record = open_commit(
            url,
            COMMIT,
            PromptBankRecord,
            FORMAT_VERSION,
            absent="there is no finished prompt bank; make one with `pngnoise prompts`",
            remedy="run `pngnoise prompts` again with another output",
        )
        parts = self.record.parts
        if len(parts) != -(-self.record.entries // self.record.shard) or any(len(p.objects) != 1 for p in parts):
            raise IntegrityError(
                f"{join(url, COMMIT)}: the parts do not match the number of entries; build the bank again"
            )

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per entry (:data:`SCHEMA`).

        Raises:
            IntegrityError: a part is damaged.
        """
        found: list[dict[str, Any]] = []
        for part in self.record.parts:
            location = join(self.url, part.part)
            content = read_bytes(location)
            if sha256(content) != part.sha256:
                raise IntegrityError(f"{location}: sha256 differs from {COMMIT}; the bank is damaged, make it again")
            table = decode_part(content, location)[0]
            if not table.schema.equals(SCHEMA):
                raise IntegrityError(f"{location}: has other columns than a prompt bank; make the bank again")
            found += table.to_pylist()
        if len(found) != self.record.entries:
            raise IntegrityError(
                f"{self.url}: its parts hold {len(found)} entries, {COMMIT} records {self.record.entries}; "
                "make it again"
            )
        return found

    def read(self, entry: int) -> Entry:
        """One entry.

        Raises:
            UserError: there is no entry of that number. IntegrityError: it is damaged.
        """
        if not 0 <= entry < self.record.entries:
            raise UserError(f"{self.url}: there is no entry {entry}; it holds {self.record.entries}")
        row, part = self.rows[entry], self.record.parts[entry // self.record.shard]
        location = join(self.url, next(iter(part.objects)))

        def decoded(_: int, content: bytes) -> Entry:
            if sha256(content) != row["sha256"]:
                raise IntegrityError(
                    f"{location}: is damaged (entry {entry} has another sha256); `pngnoise verify {self.url}` lists "
                    "all damage, the command that made the bank repairs it"
                )
            try:
                return decode_entry(content)
            except ValueError as error:
                raise IntegrityError(f"{location}: entry {entry}: {error}; make the bank again") from None

        return read_ranges([ByteRange(location, row["start"], row["stop"])], decoded)[0]

    def verify(self) -> Iterator[str]:
        """Check every object against the commit record; yields one line per problem."""
        digest = parts_digest(stored_plan_key(self.url), self.record.parts)
        yield from commit_problems(self.url, COMMIT, self.record, digest)
        for part in self.record.parts:
            yield from part_problems(self.url, part)
