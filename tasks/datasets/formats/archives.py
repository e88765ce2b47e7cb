"""Members of .zip and .tar archives, read in place by byte ranges: one look at the directory, one range per member.

The directory of an archive is read once per process and version of the file; fsspec's own archive file systems read
it again for every member, which for a tar on object storage is the whole tar. Names are never paths on disk.
"""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import IO, BinaryIO, cast

from pngmodel.errors import UserError
from tasks.datasets.formats.limits import check_bytes
from tasks.stores.io.filesystem import file_size, read_bytes
from tasks.stores.io.listing import file_stamp
from tasks.stores.io.read_ranges import open_file, read_range

_LOCAL_HEADER = struct.Struct("<IHHHHHIIIHH")
_STORED, _DEFLATED, _ENCRYPTED = 0, 8, 1
_SPOOL = 64 << 20  # bytes that are unpacked in memory before a temporary file is used
_MAX_SPOOL = 4 << 30  # and what such a file may hold
_STEP = 4 << 20
_DIRECTORY_BLOCK = 1 << 16  # bytes asked for at once: headers in a tar lie far apart


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie, and what they become."""

    offset: int  # of the data in a tar, of the local header in a zip
    packed: int
    size: int
    method: int = _STORED
    crc: int | None = None
    problem: str | None = None  # why it is not read


def kind_of(uri: str) -> str | None:
    """``zip`` or ``tar`` when ``uri`` means a member of an archive."""
    scheme = uri.split("://", 1)[0]
    return scheme if "::" in uri and scheme in ("zip", "tar") else None


def members(kind: str, url: str) -> dict[str, Member]:
    """All members that are files or links, by name.

    Raises:
        UserError: no whole archive.
    """
    return _directory(kind, url, file_stamp(url))


@lru_cache(maxsize=4)
def _directory(kind: str, url: str, stamp: str) -> dict[str, Member]:
    with open_file(url, _DIRECTORY_BLOCK) as file:
        try:
            read = _zip_members if kind == "zip" else _tar_members
            return read(file, file_size(url))
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            NotImplementedError,
            OSError,
            EOFError,
            ValueError,
            IndexError,
            OverflowError,
            struct.error,
            zlib.error,
            RecursionError,
            MemoryError,
        ) as error:
            raise UserError(f"{url}: is no whole {kind} archive ({error}); fetch it again") from None


def _zip_members(file: IO[bytes], size: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.filename.endswith(("/", "\\")):  # a folder; some writers put the separators of their system
                continue
            problem = None
            if stat.S_ISLNK(info.external_attr >> 16):
                problem = "it is a link; links in archives are not followed"
            elif info.flag_bits & _ENCRYPTED:
                problem = "it is encrypted; unpack the archive"
            elif info.header_offset < 0 or info.header_offset + info.compress_size > size:
                problem = "the archive's directory says that it lies beyond the archive's ends; fetch the archive again"
            elif info.compress_type not in (_STORED, _DEFLATED):
                problem = f"it is packed by method {info.compress_type}; pack it with deflate or unpack the archive"
            member = Member(
                info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC, problem
            )
            found[info.filename] = _twice(member) if info.filename in found else member
    return found


def _tar_members(file: IO[bytes], size: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.size < 0 or archive.offset <= info.offset:  # it would be read over and over
                raise ValueError(f"the size of {info.name!r} is {info.size}")
            if info.isdir():
                continue
            problem = None
            if info.issym() or info.islnk():
                problem = "it is a link; links in archives are not followed"
            elif not info.isfile() or info.issparse():
                problem = "it is no plain file"
            elif info.offset_data + info.size > size:
                problem = "the archive ends in the middle of it; fetch the archive again"
            member = Member(info.offset_data, info.size, info.size, problem=problem)
            found[info.name] = _twice(member) if info.name in found else member
        file.seek(archive.offset)
        if any(mark := file.read(tarfile.BLOCKSIZE)) or len(mark) < tarfile.BLOCKSIZE:
            raise EOFError("it ends without an end mark")  # cut off between two members
    return found


def _twice(member: Member) -> Member:
    return replace(member, problem="the archive holds two members of this name; remove one and pack it again")


def read_whole(uri: str) -> bytes:
    """The content of an image file, in an archive or not.

    Raises:
        UserError: missing, damaged, or larger than any image; names the file.
    """
    kind = kind_of(uri)
    if kind is None:
        check_bytes(uri, file_size(uri))
        return read_bytes(uri)
    url, member = _member(kind, uri)
    check_bytes(uri, member.size)
    buffer = io.BytesIO()
    _unpack(kind, uri, url, member, buffer)
    return buffer.getvalue()


@contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """A seekable file, in an archive or not, for formats that are read by slice.

    Raises:
        UserError: missing or damaged; names the file.
    """
    kind = kind_of(uri)
    if kind is None:
        with open_file(uri) as plain:
            yield plain
        return
    url, member = _member(kind, uri)
    if member.method == _STORED:
        with open_file(url) as archive:
            yield _window(archive, _data_offset(kind, uri, url, member), member.size)
        return
    if member.size > _MAX_SPOOL:
        raise UserError(f"{uri}: unpacks to {member.size / 1e9:.1f} GB; unpack the archive first")
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spool:  # seeking in deflated bytes starts over each time
        _unpack(kind, uri, url, member, spool)
        yield _window(cast(BinaryIO, spool), 0, member.size)


def _member(kind: str, uri: str) -> tuple[str, Member]:
    name, _, url = uri.removeprefix(f"{kind}://").partition("::")
    member = members(kind, url).get(name)
    if member is None:
        raise UserError(f"{uri}: the archive holds no such file")
    if member.problem is not None:
        raise UserError(f"{uri}: {member.problem}")
    return url, member


def _data_offset(kind: str, uri: str, url: str, member: Member) -> int:
    if kind == "tar":
        return member.offset
    header = read_range(url, member.offset, member.offset + _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise UserError(f"{uri}: the archive is damaged there; fetch it again")
    *_, name, extra = _LOCAL_HEADER.unpack(header)
    return member.offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _unpack(kind: str, uri: str, url: str, member: Member, out: IO[bytes]) -> None:
    """Write the member's content to ``out``; never more than the directory promises."""
    start = _data_offset(kind, uri, url, member)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == _DEFLATED else None
    crc = have = 0
    try:
        for at in range(start, start + member.packed, _STEP):
            packed = read_range(url, at, min(at + _STEP, start + member.packed))
            while packed:
                piece = packed if inflate is None else inflate.decompress(packed, _STEP)
                packed = b"" if inflate is None else inflate.unconsumed_tail
                have += len(piece)
                if have > member.size:
                    raise UserError(f"{uri}: holds more than the archive's directory promises; fetch the archive again")
                crc = zlib.crc32(piece, crc)
                out.write(piece)
        if inflate is not None:
            rest = inflate.flush()
            have, crc = have + len(rest), zlib.crc32(rest, crc)
            out.write(rest)
    except zlib.error as error:
        raise UserError(f"{uri}: is damaged in the archive ({error}); fetch the archive again") from None
    if have != member.size or (member.crc is not None and crc != member.crc):
        raise UserError(f"{uri}: is damaged in the archive (other bytes than were packed); fetch the archive again")


def _window(file: BinaryIO, start: int, size: int) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Window(file, start, size)))


class _Window(io.RawIOBase):
    """A stretch of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        content = self._file.read(count)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
