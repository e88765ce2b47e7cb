"""The Parquet part of a shard: a row per pair, and in its metadata the facts that say whether the shard is whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pngmodel.errors import IntegrityError
from pngmodel.jsontext import decode_json
from tasks.runtime.provenance import content_key
from tasks.stores.io.tables import decode_table, encode_table, written_by

_FACTS = b"pngnoise.shard"


@dataclass(frozen=True)
class Facts:
    """What a part knows of its shard."""

    shard: str
    """The shard's key (:func:`~tasks.stores.plans.shard_key`)."""
    rows_sha256: str
    objects: dict[str, dict[str, Any]]
    """By array: ``sha256`` and ``index_sha256`` and ``bytes`` of its object."""
    sums: dict[str, Any] = field(default_factory=dict)
    """What a store's statistics are added up from; empty in corpora."""


def encode_part(table: pa.Table, facts: Facts) -> bytes:
    """A part: rows, and facts in its metadata."""
    content = json.dumps(asdict(facts), sort_keys=True).encode()
    return encode_table(table.replace_schema_metadata({_FACTS: content}))


def decode_part(content: bytes, location: str) -> tuple[pa.Table, Facts]:
    """Rows and facts of a part.

    Raises:
        IntegrityError: it is damaged, or of another format; ``location`` is named.
    """
    try:
        table = decode_table(content, location)
        facts = Facts(**decode_json((table.schema.metadata or {})[_FACTS]))
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{location}: is damaged ({error}); run the same command again") from None
    return table.replace_schema_metadata(None), facts


def rows_digest(table: pa.Table) -> str:
    """Digest of the rows, whatever pyarrow wrote them."""
    return content_key([table.schema.names, table.to_pylist()])


def is_whole(content: bytes, location: str, shard: str) -> Facts | None:
    """The facts of a part that is that of the shard with this key and is undamaged, else None."""
    try:
        table, facts = decode_part(content, location)
    except IntegrityError:
        return None
    if facts.shard != shard or facts.rows_sha256 != rows_digest(table):
        return None
    again = encode_part(table, facts)
    if content != again and written_by(content) == written_by(again):
        return None  # damaged where no row is; another pyarrow may rightly encode otherwise
    return facts
