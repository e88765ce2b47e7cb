"""Parts of files: byte ranges, and files that are read by slice."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem

from pngmodel.errors import IntegrityError, TransientError
from tasks.runtime.retries import CONTENT_ATTEMPTS
from tasks.stores.io.filesystem import explained, filesystem, is_local
from tasks.stores.io.objects import http_status

Found = TypeVar("Found")
_BLOCK = 4 << 20  # bytes
_BEYOND_THE_END = 416  # HTTP: the file ends before the range starts


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``start`` to ``stop`` (exclusive) of a file."""

    url: str
    start: int
    stop: int


def read_ranges(ranges: Sequence[ByteRange], use: Callable[[int, bytes], Found]) -> list[Found]:
    """Reads byte ranges and returns ``use(k, content)`` of each; object storage serves them in parallel.

    Ranges carry no checksum of their own. A range of object storage that cannot be read, or that ``use`` rejects with
    an IntegrityError, is read again (:mod:`tasks.runtime.retries`).

    Raises:
        IntegrityError: a file is missing or too short, or ``use`` still rejects its content.
        TransientError: storage fails.
    """
    found: dict[int, Found] = {}
    waiting = list(range(len(ranges)))
    for attempt in range(CONTENT_ATTEMPTS):
        failed: dict[int, IntegrityError | TransientError] = {}
        contents = _contents([ranges[k] for k in waiting])
        for k, content in zip(waiting, contents, strict=True):
            try:
                if isinstance(content, Exception):
                    raise content
                if len(content) != ranges[k].stop - ranges[k].start:
                    raise IntegrityError(
                        f"{ranges[k].url}: is damaged (shorter than recorded); `pngnoise verify` lists all damage"
                    )
                found[k] = use(k, content)
            except (IntegrityError, TransientError) as error:
                failed[k] = error
        waiting = list(failed)
        if waiting and (attempt == CONTENT_ATTEMPTS - 1 or is_local(ranges[waiting[0]].url)):
            raise failed[waiting[0]]
        if not waiting:
            break
    return [found[k] for k in range(len(ranges))]


def _contents(ranges: Sequence[ByteRange]) -> list[bytes | TransientError]:
    """Content of every range; shorter where the file ends, an error where storage failed."""
    if not ranges:
        return []
    for wanted in ranges:
        if not 0 <= wanted.start <= wanted.stop:
            raise IntegrityError(
                f"{wanted.url}: is damaged (a record names its bytes {wanted.start} to {wanted.stop}); make it again"
            )
    fs, _ = filesystem(ranges[0].url)
    if isinstance(fs, LocalFileSystem):
        found: list[Any] = [_read_local(wanted) for wanted in ranges]
    else:
        paths = [filesystem(wanted.url)[1] for wanted in ranges]
        starts, stops = [r.start for r in ranges], [r.stop for r in ranges]
        found = fs.cat_ranges(paths, starts, stops, on_error="return")
    return [_content(wanted.url, content) for wanted, content in zip(ranges, found, strict=True)]


def _content(url: str, content: Any) -> bytes | TransientError:
    if isinstance(content, FileNotFoundError):
        raise IntegrityError(f"{url}: is missing; `pngnoise verify` lists all damage")
    if not isinstance(content, BaseException):
        return bytes(content)
    if http_status(content) == _BEYOND_THE_END:
        return b""
    try:
        with explained(url, "reading"):
            raise content
    except TransientError as error:
        return error


def _read_local(wanted: ByteRange) -> bytes | OSError:
    try:
        with Path(filesystem(wanted.url)[1]).open("rb", buffering=0) as file:
            if wanted.stop > os.fstat(file.fileno()).st_size:
                return b""  # too short; pread would allocate the size that a damaged record names
            return os.pread(file.fileno(), wanted.stop - wanted.start, wanted.start)
    except OSError as error:
        return error


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` (exclusive) of a file; fewer if the file is shorter."""
    fs, path = filesystem(url)
    with explained(url, "reading"):
        return bytes(fs.cat_file(path, start=start, end=stop)) if stop > start else b""


def file_sha256(url: str) -> str:
    """sha256 of a file of any size, hexadecimal; holds a few MB in memory."""
    found = hashlib.sha256()
    with open_file(url) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


@contextmanager
def open_file(url: str, block: int = _BLOCK) -> Iterator[BinaryIO]:
    """Open a seekable binary file, for formats that are read by slice.

    Object storage is read ahead in blocks of ``block`` bytes. Storage failures leave the context as
    :class:`TransientError`, even if a decoder inside it mistakes them for damage.
    """
    fs, path = filesystem(url)
    with explained(url, "reading"):
        file = cast(BinaryIO, fs.open(path, "rb", block_size=block))
    if isinstance(fs, LocalFileSystem):
        with file:
            yield file
        return
    with _Remote(url, file) as remote:
        try:
            yield cast(BinaryIO, remote)
        except Exception:
            if remote.lost is not None:
                raise remote.lost from None
            raise


class _Remote(io.RawIOBase):
    """A file on object storage that remembers its last storage failure."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url, self._file = url, file
        self.name = url  # as local files have it; tifffile asks for it through a tar member
        self.lost: TransientError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        try:
            with explained(self._url, "reading"):
                content = self._file.read(len(room))
        except TransientError as error:
            self.lost = error
            raise
        room[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
