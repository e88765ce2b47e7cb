"""Parts of files: spans that a record names, ranges, and files that are read by slice."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem

from pngmodel.errors import IntegrityError, TransientError
from tasks.stores.io.filesystem import explained, filesystem, is_local
from tasks.stores.io.objects import ATTEMPTS, http_status

Found = TypeVar("Found")
_BEYOND_THE_END = 416  # HTTP: a file ends before a span begins


@dataclass(frozen=True)
class ByteRange:
    """Some bytes of a file: from ``start`` to before ``stop``."""

    url: str
    start: int
    stop: int


def read_ranges(ranges: Sequence[ByteRange], use: Callable[[int, bytes], Found]) -> list[Found]:
    """What ``use`` makes of the number and the bytes of every span; object storage is asked for all at once.

    What ``use`` refuses by an IntegrityError is fetched again from object storage, a few times: parts of objects have
    no tag, and what was damaged on its way is whole where it lies.

    Raises:
        IntegrityError: a file is missing or too short: who asks for a span knows that it should be there. Or what
            ``use`` raised last.
    """
    found: dict[int, Found] = {}
    waiting = list(range(len(ranges)))
    for attempt in range(ATTEMPTS):
        refused: dict[int, IntegrityError] = {}
        for k, content in zip(waiting, _contents([ranges[k] for k in waiting]), strict=True):
            try:
                if len(content) != ranges[k].stop - ranges[k].start:
                    raise IntegrityError(
                        f"{ranges[k].url}: is damaged (shorter than recorded); `pngnoise verify` lists all damage"
                    )
                found[k] = use(k, content)
            except IntegrityError as error:
                refused[k] = error
        waiting = list(refused)
        if waiting and (attempt == ATTEMPTS - 1 or is_local(ranges[waiting[0]].url)):
            raise refused[waiting[0]]
        if not waiting:
            break
    return [found[k] for k in range(len(ranges))]


def _contents(ranges: Sequence[ByteRange]) -> list[bytes]:
    """What there is of every span."""
    if not ranges:
        return []
    for span in ranges:
        if not 0 <= span.start <= span.stop:
            raise IntegrityError(f"{span.url}: is damaged (a record names bytes {span.start} to {span.stop} of it)")
    fs, _ = filesystem(ranges[0].url)
    if isinstance(fs, LocalFileSystem):
        found: list[Any] = [_read_local(span) for span in ranges]
    else:
        paths = [filesystem(span.url)[1] for span in ranges]
        starts, stops = [s.start for s in ranges], [s.stop for s in ranges]
        found = fs.cat_ranges(paths, starts, stops, on_error="return")
    for k, (span, content) in enumerate(zip(ranges, found, strict=True)):
        if isinstance(content, FileNotFoundError):
            raise IntegrityError(f"{span.url}: is missing; `pngnoise verify` lists what else is")
        if isinstance(content, BaseException):
            if http_status(content) != _BEYOND_THE_END:
                with explained(span.url, "reading"):
                    raise content
            found[k] = b""
    return [bytes(content) for content in found]


def _read_local(span: ByteRange) -> bytes | OSError:
    try:
        with Path(filesystem(span.url)[1]).open("rb", buffering=0) as file:
            if span.stop > os.fstat(file.fileno()).st_size:
                return b""  # too short; pread would first take the memory that a damaged record asks for
            return os.pread(file.fileno(), span.stop - span.start, span.start)
    except OSError as error:
        return error


def read_range(url: str, start: int, stop: int) -> bytes:
    """Some bytes of a file; fewer when it ends before ``stop``."""
    fs, path = filesystem(url)
    with explained(url, "reading"):
        return bytes(fs.cat_file(path, start=start, end=stop)) if stop > start else b""


@contextmanager
def open_file(url: str, block: int = 4 << 20) -> Iterator[BinaryIO]:
    """A seekable binary file for the block, for formats that are read by slice.

    Object storage is asked for ``block`` bytes ahead of what is read. Its failures leave the block as a
    :class:`TransientError`, also out of a decoder that takes every error for damage.
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
    """A file of object storage that tells its failures as such and remembers the last one."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url, self._file = url, file
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
        room = memoryview(buffer).cast("B")  # whatever its items are
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
