"""Exports: a published corpus in the files that other people's trainers read (docs/exports.md). One file a format."""

from __future__ import annotations

from tasks.corpus.exports.folders import Folders
from tasks.corpus.exports.lmdb import Lmdb
from tasks.corpus.exports.parquet import Parquet
from tasks.corpus.exports.protocol import ExportFormat
from tasks.corpus.exports.webdataset import WebDataset

FORMATS: dict[str, ExportFormat] = {
    "webdataset": WebDataset(),
    "folders": Folders(),
    "lmdb": Lmdb(),
    "parquet": Parquet(),
}
"""Every format by the name that `pngnoise export --format` takes."""
