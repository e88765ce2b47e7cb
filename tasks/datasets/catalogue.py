"""The catalogue of a dataset: a table of its pairs and how to read them (docs/formats/catalogue.md)."""

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
"""Statistics are fractions of ``data_range``; images that are not published are null; ``*_sha256`` covers pixels."""


class CatalogueRecord(BaseModel):
    """catalogue.json, the commit record of a catalogue."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["pngnoise-catalogue"]
    format_version: Literal[3]
    source: str = Field(description="folder, archive or URL of the dataset")
    adapter: str
    pairs: int = Field(ge=1, description="rows of the table")
    rejected: int = Field(ge=0)
    ignored: int = Field(ge=0, description="files that are not part of the layout")
    table_sha256: str = Field(description="sha256, hexadecimal, of catalogue.parquet")
    digest: str = Field(description="digest of metadata and pixels, independent of file locations")
    packages: dict[str, str] = Field(description="versions of the packages that read the images")


def load_catalogue(url: str) -> tuple[pa.Table, str]:
    """Load the table of a catalogue and its digest.

    Raises:
        UserError: There is no catalogue, or its format version is not supported.
        IntegrityError: The table does not match the commit record.
    """
    known = open_commit(
        url,
        COMMIT,
        CatalogueRecord,
        FORMAT_VERSION,
        absent="not a (finished) catalogue; create one with `pngnoise ingest`",
        remedy="run `pngnoise ingest` again",
    )
    content = read_bytes(join(url, TABLE))
    if sha256(content) != known.table_sha256:
        raise IntegrityError(f"{join(url, TABLE)}: the SHA-256 differs from {COMMIT}; run `pngnoise ingest` again")
    table = decode_table(content, join(url, TABLE), SCHEMA)
    if table.num_rows != known.pairs:
        raise IntegrityError(
            f"{join(url, TABLE)}: has {table.num_rows} rows, but {COMMIT} states {known.pairs}; run `pngnoise ingest` "
            "again"
        )
    return table, known.digest


def read_catalogued(rows: Sequence[dict[str, Any]], side: str) -> Iterator[Pixels]:
    """Yield the ``noisy`` or ``clean`` image of catalogue rows, (H, W, C) each, in order.

    Consecutive rows of a container file are read in one pass.

    Raises:
        UserError: The dataset does not publish that side.
        IntegrityError: An image has changed since ingestion.
    """
    for uri, run in groupby(rows, key=lambda row: row[side]):
        members = list(run)
        if uri is None:
            raise UserError(f"{members[0]['pair']}: the dataset has no {side} images; use another dataset")
        # Plain files are read one by one: rows rarely share a file, and holding both images takes memory.
        for row, image in zip(members, read_pixels(uri, [row[f"{side}_part"] for row in members]), strict=True):
            if pixel_digest(image) != row[f"{side}_sha256"]:
                raise IntegrityError(f"{uri}: has changed since it was ingested; run `pngnoise ingest` again")
            yield image


def read_one(row: dict[str, Any], side: str) -> Pixels:
    """Read one image of a catalogue row; see :func:`read_catalogued`."""
    return next(read_catalogued([row], side))
