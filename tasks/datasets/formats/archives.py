"""Members of .zip and .tar archives, read in place without unpacking the archive.

The directory of an archive is read once per process and version of the file: that of a tar is spread over the whole
archive. Names of members are never used as paths on disk.
"""

from __future__ import annotations

import io
import shutil
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
from tasks.stores.io.read_ranges import open_file

_ENCRYPTED = 1
_IN_MEMORY = 64 << 20  # bytes; larger members are unpacked to a temporary file
_MAX_UNPACKED = 4 << 30
_DIRECTORY_BLOCK = 1 << 16  # bytes per request: headers in a tar are far apart
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    info: zipfile.ZipInfo | tarfile.TarInfo
    size: int
    problem: str | None = None
    """Why it is not read."""


def kind_of(uri: str) -> str | None:
    """``zip`` or ``tar`` if ``uri`` is a member of an archive."""
    scheme = uri.split("://", 1)[0]
    return scheme if "::" in uri and scheme in ("zip", "tar") else None


def members(kind: str, url: str) -> dict[str, Member]:
    """All members that are files or links, by name.

    Raises:
        UserError: the archive is damaged or incomplete.
    """
    return _directory(kind, url, file_stamp(url))


@lru_cache(maxsize=4)
def _directory(kind: str, url: str, stamp: str) -> dict[str, Member]:
    with open_file(url, _DIRECTORY_BLOCK) as file:
        try:
            read = _zip_members if kind == "zip" else _tar_members
            return read(file, file_size(url))
        except _DAMAGE as error:
            raise UserError(f"{url}: is not a complete {kind} archive ({error}); fetch it again") from None


def _zip_members(file: IO[bytes], size: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.filename.endswith(("/", "\\")):  # a folder; some writers use the separators of their system
                continue
            problem = None
            if stat.S_ISLNK(info.external_attr >> 16):
                problem = "it is a link; links in archives are not followed"
            elif info.flag_bits & _ENCRYPTED:
                problem = "it is encrypted; unpack the archive"
            elif info.header_offset < 0 or info.header_offset + info.compress_size > size:
                problem = "it ends beyond the end of the archive; fetch the archive again"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = f"compression method {info.compress_type} is not supported; use deflate or unpack the archive"
            member = Member(info, info.file_size, problem)
            found[info.filename] = _duplicate(member) if info.filename in found else member
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
                problem = "it is not a plain file"
            elif info.offset_data + info.size > size:
                problem = "the archive ends in the middle of it; fetch the archive again"
            member = Member(info, info.size, problem)
            found[info.name] = _duplicate(member) if info.name in found else member
        file.seek(archive.offset)
        if any(mark := file.read(tarfile.BLOCKSIZE)) or len(mark) < tarfile.BLOCKSIZE:
            raise EOFError("it has no end mark")  # truncated between two members
    return found


def _duplicate(member: Member) -> Member:
    return replace(member, problem="the archive has two members of this name; remove one and pack it again")


def read_whole(uri: str) -> bytes:
    """Content of an image file, in an archive or not.

    Raises:
        UserError: the file is missing, damaged, or above the size limit.
    """
    kind = kind_of(uri)
    if kind is None:
        check_bytes(uri, file_size(uri))
        return read_bytes(uri)
    url, member = _member(kind, uri)
    check_bytes(uri, member.size)
    with _content(url, member) as content:
        _copy(uri, content, member.size, copy := io.BytesIO())
        return copy.getvalue()


@contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """Open a seekable file, in an archive or not, for formats that are read by slice.

    Raises:
        UserError: the file is missing or damaged.
    """
    kind = kind_of(uri)
    if kind is None:
        with open_file(uri) as plain:
            yield plain
        return
    url, member = _member(kind, uri)
    with _content(url, member) as content:
        if isinstance(member.info, tarfile.TarInfo) or member.info.compress_type == zipfile.ZIP_STORED:
            yield cast(BinaryIO, content)
            return
        if member.size > _MAX_UNPACKED:
            raise UserError(f"{uri}: unpacks to {member.size / 1e9:.1f} GB; unpack the archive first")
        # Unpacked, because every seek back would inflate the member from its start again.
        with io.BytesIO() if member.size <= _IN_MEMORY else tempfile.NamedTemporaryFile() as copy:
            _copy(uri, content, member.size, cast(BinaryIO, copy))
            yield cast(BinaryIO, copy)


def _member(kind: str, uri: str) -> tuple[str, Member]:
    name, _, url = uri.removeprefix(f"{kind}://").partition("::")
    member = members(kind, url).get(name)
    if member is None:
        raise UserError(f"{uri}: the archive has no such file")
    if member.problem is not None:
        raise UserError(f"{uri}: {member.problem}")
    return url, member


@contextmanager
def _content(url: str, member: Member) -> Iterator[IO[bytes]]:
    """A member as a seekable file."""
    with open_file(url) as file:
        if isinstance(member.info, tarfile.TarInfo):
            with tarfile.TarFile(fileobj=file) as tar:
                content = tar.extractfile(member.info)
                assert content is not None, "members that are not plain files have a problem"
                yield content
            return
        try:
            archive = zipfile.ZipFile(file)
            packed = archive.open(member.info)
        except _DAMAGE as error:
            name = f"zip://{member.info.filename}::{url}"
            raise UserError(f"{name}: is damaged in the archive ({error}); fetch the archive again") from None
        with archive, packed:
            yield packed


def _copy(uri: str, content: IO[bytes], size: int, out: BinaryIO) -> None:
    try:
        shutil.copyfileobj(content, out, 1 << 20)  # zipfile checks size and CRC
        if out.tell() != size:
            raise EOFError(f"{out.tell()} of {size} bytes")
    except _DAMAGE as error:
        raise UserError(f"{uri}: is damaged in the archive ({error}); fetch the archive again") from None
    out.seek(0)
