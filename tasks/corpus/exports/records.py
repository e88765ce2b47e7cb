"""What receipts and the commit record of an export hold: checked on writing and on reading, printed as JSON schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.exports.protocol import FileFact, Written
from tasks.stores.io.relative_path import RelativePath


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExportFile(_Strict):
    """One file."""

    sha256: str
    bytes: int = Field(ge=0)


class Receipt(_Strict):
    """One share: a tar, a table, a database or a run of image files."""

    key: str = Field(description="digest of the plan")
    pairs: int = Field(ge=0)
    files: dict[RelativePath, ExportFile] = Field(description="by path in the export")

    def written(self) -> Written:
        """The same as a plain value."""
        return Written(self.pairs, {name: FileFact(f.sha256, f.bytes) for name, f in self.files.items()})


class ExportPart(_Strict):
    """One share in the commit record."""

    receipt: RelativePath = Field(description="path of its receipt in the export")
    sha256: str = Field(description="sha256, hexadecimal, of the receipt")
    pairs: int = Field(ge=0)
    bytes: int = Field(ge=0, description="of its files")


class ExportRecord(_Strict):
    """export.json, the commit record of an export."""

    kind: Literal["export"]
    format_version: Literal[1]
    format: str = Field(description="webdataset, folders, lmdb or parquet")
    settings: dict[str, Any]
    corpus: str = Field(description="digest of the corpus")
    licence: str = Field(description="licences of the sources, separated by '; '")
    arrays: list[str]
    shape: list[int] = Field(description="channels, height, width")
    dtype: str
    pairs: int = Field(ge=0, description="exported pairs")
    skipped: int = Field(ge=0, description="pairs that the quality gate rejected and that are not here")
    bytes: int = Field(ge=0, description="of all files")
    packages: dict[str, str] = Field(description="versions of what decides the bytes")
    parts: list[ExportPart]
    files: dict[RelativePath, ExportFile] = Field(description="every file; of folders only those that are no images")
    digest: str = Field(description="over plan and parts: equal content has equal digests")
    record_sha256: str = Field(description="sha256, hexadecimal, of this record without this key, as of other stores")
