"""The commit record of an export; `pngnoise schema export` prints it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.stores.commits import SHA256, CommitRecord, ObjectFact, StrictModel
from tasks.stores.io.relative_path import RelativePath


class ExportPart(StrictModel):
    """One share in the commit record. Its own table lists its files."""

    part: RelativePath = Field(description="path of its Parquet table in the export")
    sha256: str = Field(description=f"{SHA256}, of that table's file")
    pairs: int = Field(ge=0)
    bytes: int = Field(ge=0, description="size of its files")


class ExportRecord(CommitRecord):
    """export.json, the commit record of an export."""

    kind: Literal["export"]
    format_version: Literal[2]
    format: str = Field(description="webdataset, folders, lmdb or parquet")
    settings: dict[str, Any]
    corpus: str = Field(description="digest of the corpus")
    arrays: list[str]
    shape: list[int] = Field(description="channels, height, width")
    dtype: str
    pairs: int = Field(ge=0, description="exported pairs")
    skipped: int = Field(ge=0, description="pairs that the quality gate rejected and that were not exported")
    bytes: int = Field(ge=0, description="size of all files")
    parts: list[ExportPart]
    files: dict[RelativePath, ObjectFact] = Field(description="files that belong to no share, by path")
