"""The catalogue of a dataset: what its files are, and how to read them (docs/formats/catalogue.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.records import SIDES
from tasks.datasets.verification import MEASURED, pixel_digest
from tasks.stores.commits import open_commit
from tasks.stores.io.filesystem import join, read_bytes, sha256
from tasks.stores.io.tables import decode_table
from tasks.stores.kinds import COMMITS
from tasks.stores.patch_store import PAIR_COLUMNS
from tasks.stores.shard_file import Pixels

COMMIT = COMMITS["catalogue"]
TABLE, REJECTED, REPORT = "catalogue.parquet", "rejected.json", "report.html"
FORMAT_VERSION = 3
Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        *PAIR_COLUMNS,
        *MEASURED,
        ("data_range", pa.float64()),
        *((name, pa.string()) for side in SIDES for name in (side, f"{side}_part", f"{side}_sha256")),
    ]
)
"""Statistics are fractions of ``data_range``; a side that is not published is null; ``*_sha256`` is over pixels."""


class CatalogueRecord(BaseModel):
    """catalogue.json, the commit record of a catalogue."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["pngnoise-catalogue"]
    format_version: Literal[3]
    source: str = Field(description="folder, archive or URL that was read")
    adapter: str
    pairs: int = Field(ge=1, description="rows of the table")
    rejected: int = Field(ge=0)
    ignored: int = Field(ge=0, description="files that are no part of the layout")
    table_sha256: str = Field(description="sha256, hexadecimal, of catalogue.parquet")
    digest: str = Field(description="over facts and pixels, not over places")
    packages: dict[str, str] = Field(description="versions of what read the images")


def load_catalogue(url: str) -> tuple[pa.Table, str]:
    """The table of a committed catalogue and its digest.

    Raises:
        UserError: no catalogue there, or one of another format version. IntegrityError: the table does not fit it.
    """
    known = open_commit(
        url,
        COMMIT,
        CatalogueRecord,
        FORMAT_VERSION,
        absent="not a (finished) catalogue; make one with `pngnoise ingest`",
        remedy="run `pngnoise ingest` again",
    )
    content = read_bytes(join(url, TABLE))
    if sha256(content) != known.table_sha256:
        raise IntegrityError(f"{join(url, TABLE)}: sha256 differs from {COMMIT}; run `pngnoise ingest` again")
    table = decode_table(content, join(url, TABLE), SCHEMA)
    if table.num_rows != known.pairs:
        raise IntegrityError(
            f"{join(url, TABLE)}: has {table.num_rows} rows, {COMMIT} says {known.pairs}; run `pngnoise ingest` again"
        )
    return table, known.digest


def read_catalogued(rows: Sequence[dict[str, Any]], side: str) -> Iterator[Pixels]:
    """Yield the ``noisy`` or ``clean`` image of catalogue rows, (H, W, C) each, in order.

    Consecutive rows of one container file are read in one pass through it.

    Raises:
        UserError: that side is not published. IntegrityError: an image is not the one that was catalogued.
    """
    for uri, run in groupby(rows, key=lambda row: row[side]):
        members = list(run)
        if uri is None:
            raise UserError(f"{members[0]['pair']}: the dataset publishes no {side} image")
        # Plain files are read one by one: two rows of the same file are rare, holding both images is not free.
        for row, image in zip(members, read_pixels(uri, [row[f"{side}_part"] for row in members]), strict=True):
            if pixel_digest(image) != row[f"{side}_sha256"]:
                raise IntegrityError(f"{uri}: changed since it was catalogued; run `pngnoise ingest` again")
            yield image


def read_one(row: dict[str, Any], side: str) -> Pixels:
    """One image of one catalogue row; see :func:`read_catalogued`."""
    return next(read_catalogued([row], side))
