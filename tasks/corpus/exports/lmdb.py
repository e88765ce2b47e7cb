"""LMDB as BasicSR makes it: one database a side, PNGs under names without extension, ``meta_info.txt`` beside them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pngmodel.errors import UserError
from tasks.corpus.exports.folders import BASICSR, FOLDERS, META, NAFNET, shape_words
from tasks.corpus.exports.images import PNG, PNG_LEVEL, encode_image
from tasks.corpus.exports.pairs import CorpusPairs
from tasks.corpus.exports.protocol import ExportTask, Settings, Share, Written
from tasks.runtime.progress import reporter
from tasks.stores.commits import ObjectFact
from tasks.stores.io.filesystem import local_path
from tasks.stores.io.read_ranges import file_sha256

_DATA = "data.mdb"
_PAGE = 4096
_TREE = 64 << 20  # bytes for the tree of keys and the pages that a commit sets free
_COMMIT = 64  # images; what is not committed yet is in memory
_UNFINISHED = ".making"


class Lmdb:
    """Two databases. Each has one writer, so there are two tasks, and one that was killed begins again."""

    layouts = (BASICSR, NAFNET)
    codecs = (PNG,)
    file_per_image = False

    def refuse(self, output: str, settings: Settings, pairs: CorpusPairs) -> None:
        """A database is a memory map: it takes a local folder, both sides, and the library."""
        pairs.require_both()
        _local(output)
        _library()
        if settings.pairs_per_file is not None:
            raise UserError("--pairs-per-file: LMDB has one file a side, whatever its size; leave the option out")

    def shares(self, settings: Settings, pairs: CorpusPairs) -> Iterator[Share]:
        """One database each."""
        for array in pairs.arrays:
            yield Share(0, len(pairs), (array,))

    def write(self, task: ExportTask, pairs: CorpusPairs) -> Written:
        """Write a database under another name, then give it its own."""
        (array,) = task.share.arrays
        name = _database(task.settings, array)
        location = _local(task.output) / name
        for left in location.parent.glob(f".{location.name}.*{_UNFINISHED}"):
            shutil.rmtree(left, ignore_errors=True)  # of a killed run: as large as the database
        making = location.with_name(f".{location.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        making.mkdir(parents=True)
        try:
            count = _fill(making, task, pairs)
            if location.exists():
                shutil.rmtree(location)  # damaged, or it would not be written again
            making.replace(location)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return Written(count, {f"{name}/{file}": _fact(location / file) for file in (_DATA, META)})

    def closing(
        self, output: str, settings: Settings, pairs: CorpusPairs, written: Iterable[Written]
    ) -> dict[str, bytes]:
        """Nothing: the lists lie in the databases."""
        return {}


def _database(settings: Settings, array: str) -> str:
    return f"{FOLDERS[str(settings.layout)][array]}.lmdb"


def _local(output: str) -> Path:
    path = local_path(output)
    if path is None:
        raise UserError(
            f"{output}: an LMDB is a memory map and cannot lie on object storage; give a local folder as --output, "
            "or take --format webdataset, which may"
        )
    return path


def _library() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise UserError(f"--format lmdb needs the package lmdb ({error}); pip install 'pngnoise[export]'") from None
    return lmdb


def map_size(pairs: CorpusPairs) -> int:
    """Bytes of address space that any PNGs of these images fit in. The file is as long as what is written."""
    raw = int(np.prod(pairs.shape)) * np.dtype(pairs.dtype).itemsize
    largest = raw + raw // 100 + _PAGE  # filter bytes of the rows, blocks that were not compressed, headers
    return len(pairs) * (largest // _PAGE + 1) * _PAGE + _TREE


def _fill(folder: Path, task: ExportTask, pairs: CorpusPairs) -> int:
    """Write data.mdb and meta_info.txt of one side; returns the number of images. Memory holds ``_COMMIT`` of them."""
    (array,) = task.share.arrays
    shape, count, coming = shape_words(pairs), 0, task.read(pairs)
    report, total = reporter(_database(task.settings, array), "images"), _expected(task, pairs)
    # No lock file: readers of training data take none. No sync before the end: a killed database begins again.
    options = {"lock": False, "sync": False, "metasync": False, "readahead": False, "mode": 0o644}
    with (
        _library().open(str(folder), map_size=map_size(pairs), **options) as database,
        (folder / META).open("w", encoding="ascii") as meta,
    ):
        while group := [(pair.key, encode_image(pair.images[array], PNG)) for pair in islice(coming, _COMMIT)]:
            with database.begin(write=True) as transaction:
                for key, content in group:
                    transaction.put(key.encode("ascii"), content, append=True)
                    meta.write(f"{key}.png {shape} {PNG_LEVEL}\n")
            count += len(group)
            report(count, total)
        database.sync(True)
        meta.flush()
        os.fsync(meta.fileno())
    return count


def _expected(task: ExportTask, pairs: CorpusPairs) -> int:
    return pairs.accepted if task.settings.accepted_only else len(pairs)


def _fact(path: Path) -> ObjectFact:
    return ObjectFact(sha256=file_sha256(str(path)), bytes=path.stat().st_size)
