"""One path API for local folders and object storage; every write is whole or absent."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import aiohttp
import fsspec
import zarr
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.local import LocalFileSystem
from zarr.storage import FsspecStore, LocalStore

from pngmodel.errors import IntegrityError, TransientError, UserError
from pngmodel.jsontext import decode_json
from tasks.operations import BYTES_READ, BYTES_WRITTEN, count
from tasks.stores.places import LEAVES, check_url, leaves

Found = TypeVar("Found")

_TEMPORARY = ".writing"
_WRITER = "writer"  # metadata of an object
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # exFAT, SMB, some FUSE mounts
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MD5 = re.compile(r"[0-9a-f]{32}")
_TAGS_FIT: set[str] = set()
"""Buckets whose server is known to give the MD5 of the content as its tag."""
_ATTEMPTS = 5
_S3_ROUNDS = 3  # of s3fs' own, each of botocore's tries: five made a silent server cost half an hour
_MAX_LINKS = 10_000  # links to links multiply
# Adaptive: retries back off with jitter, and a server that says SlowDown is asked less often from then on. Outages of a
# few tens of seconds are survived; a wrong endpoint still fails within a minute or so.
_S3_CONFIG = {
    "retries": {"max_attempts": 12, "mode": "adaptive"},
    "connect_timeout": 5,
    "read_timeout": 30,
    "max_pool_connections": 32,  # requests of a process at once
}


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of ``url`` and the path in it. A URL without a scheme is a local path.

    Members of archives have chained URLs: ``zip://folder/a.png::s3://bucket/set.zip``.
    """
    check_url(url)
    chain = url.split("::")
    s3: dict[str, Any] = {"config_kwargs": _S3_CONFIG} if chain[-1].startswith("s3://") else {}
    options = s3 if len(chain) == 1 else {"s3": s3} if s3 else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: this kind of URL cannot be opened ({error}); use a path, file:// or s3://") from None
    if "s3" in fs.protocol:
        fs.retries = _S3_ROUNDS
    return fs, str(path)


def join(url: str, *parts: str) -> str:
    """``url`` with path parts appended."""
    return "/".join([url.rstrip("/"), *parts])


def local_path(url: str) -> Path | None:
    """The local path of ``url``, or None for object storage."""
    fs, path = filesystem(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def is_local(url: str) -> bool:
    """Whether it lies on a disk of this machine; of chained URLs the archive."""
    return local_path(url.split("::")[-1]) is not None


@contextmanager
def _explained(url: str, doing: str) -> Iterator[None]:
    """Turn storage errors into ones that name the place and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{url}: no such file") from None
    except PermissionError as error:
        why = str(error) if any(error.args) else "refused"  # some servers give no reason
        raise UserError(f"{url}: no permission while {doing} ({why}); check its owner or the credentials") from error
    except UnicodeEncodeError:
        raise UserError(f"{url!r}: holds a character that no path can; correct the path") from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise UserError(f"{url}: lies on a read-only file system ({doing}); choose another place") from error
        if error.errno in _FULL:
            raise UserError(
                f"{url}: no space left while {doing}; free some or choose another output, then run the same "
                "command again: what is already published is kept"
            ) from error
        raise TransientError(f"{url}: {doing} failed ({error})") from error
    except (BotoCoreError, ClientError, aiohttp.ClientError) as error:
        raise TransientError(
            f"{url}: {doing} failed ({error}); check AWS_ENDPOINT_URL, the bucket and credentials"
        ) from error


def read_bytes(url: str) -> bytes:
    """The content of one file. Raises UserError when it is missing or cannot be read."""
    fs, path = filesystem(url)
    with _explained(url, "reading"):
        return _whole(fs, path)


def read_if_there(url: str) -> bytes | None:
    """The content of one file, None when there is none: one request, where asking first would be two and a listing."""
    fs, path = filesystem(url)
    with _explained(url, "reading"):
        try:
            return _whole(fs, path)
        except FileNotFoundError:
            return None


def read_if_whole(url: str) -> bytes | None:
    """As :func:`read_if_there`; None also for what is known to be damaged where it lies, and has to be made again."""
    try:
        return read_if_there(url)
    except IntegrityError:
        return None


def _whole(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    content = _fetched(fs, path) if "s3" in fs.protocol else bytes(fs.cat_file(path))
    count(BYTES_READ, len(content))
    return content


def _fetched(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """An object by one request; asked for again when it broke off or is not what its tag says.

    s3fs' own way asks for the size first, to fetch large files by several requests at once, lists the folder of a
    missing one, and does not look at tags. What runs side by side here is whole files, so one request each is as fast.
    """
    bucket, key, version = fs.split_path(path)
    known: dict[str, str] = {"VersionId": version} if version else {}

    async def fetch() -> tuple[dict[str, Any], bytes | Exception]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **known)
        try:
            return answer, bytes(await answer["Body"].read())
        except (FSTimeoutError, HTTPClientError, aiohttp.ClientPayloadError, ConnectionResetError) as error:
            return answer, error  # others are of the request, which was repeated often enough
        finally:
            answer["Body"].close()

    damaged: set[str] = set()
    for attempt in range(_ATTEMPTS):
        fetched: tuple[dict[str, Any], bytes | Exception] = sync(fs.loop, fetch)
        answer, content = fetched
        if isinstance(content, Exception):
            if attempt == _ATTEMPTS - 1:
                raise content
            continue
        if _is_tagged(answer, content):
            _TAGS_FIT.add(bucket)
            return content
        if (digest := sha256(content)) in damaged:  # what goes wrong on the way does not do so twice in one place
            if bucket in _TAGS_FIT or not content:
                raise IntegrityError(f"s3://{path}: is damaged where it lies: it is not what its tag says")
            return content  # of a server whose tags are something else
        damaged.add(digest)
    raise TransientError(f"s3://{path}: {_ATTEMPTS} times arrived damaged, each time otherwise; look at the network")


def _is_tagged(answer: dict[str, Any], content: bytes) -> bool:
    """Whether an object is what its tag says, where that is an MD5: not of uploads in parts, nor under a key."""
    tag = str(answer.get("ETag", "")).strip('"')
    own = str(answer.get("ServerSideEncryption", "AES256")) == "AES256" and "SSECustomerAlgorithm" not in answer
    return not (own and _MD5.fullmatch(tag)) or hashlib.md5(content, usedforsecurity=False).hexdigest() == tag


def twice(url: str, read: Callable[[], Found]) -> Found:
    """What ``read`` returns. Of object storage it is tried once more before damage at ``url`` is believed: parts of
    objects have no tag, and what was damaged on its way is whole where it lies."""
    try:
        return read()
    except TransientError:
        raise
    except UserError:
        if is_local(url):
            raise
        return read()


def open_file(url: str, block: int = 4 << 20) -> BinaryIO:
    """A seekable binary file, for formats that are read by slice; the caller closes it.

    Object storage is asked for ``block`` bytes ahead of what is read; its failures are a :class:`TransientError`, also
    out of a decoder that takes every error for damage: see :func:`raise_lost`.
    """
    fs, path = filesystem(url)
    with _explained(url, "reading"):
        file = cast(BinaryIO, fs.open(path, "rb", block_size=block))
    return file if isinstance(fs, LocalFileSystem) else cast(BinaryIO, _Remote(url, file))


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
            with _explained(self._url, "reading"):
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


def raise_lost(file: BinaryIO) -> None:
    """Call where reading ``file`` failed: raises what storage had to do with it, if it had."""
    if isinstance(file, _Remote) and file.lost is not None:
        raise file.lost


def read_range(url: str, start: int, stop: int) -> bytes:
    """Some bytes of a file; fewer when it ends before ``stop``."""
    fs, path = filesystem(url)
    with _explained(url, "reading"):
        return bytes(fs.cat_file(path, start=start, end=stop)) if stop > start else b""


def is_file(url: str) -> bool:
    """Whether a file is there, and no folder."""
    fs, path = filesystem(url)
    with _explained(url, "looking it up"):
        return bool(fs.isfile(path))


def file_stamp(url: str) -> str:
    """What changes when the file does: size and time, or the tag that object storage gives."""
    fs, path = filesystem(url)
    with _explained(url, "looking it up"):
        fs.invalidate_cache()
        info = fs.info(path)
        return f"{info['size']} {info.get('mtime')} {info.get('ETag')} {info.get('ino')}"


def file_stamps(url: str) -> dict[str, str]:
    """As :func:`file_stamp`, of every file below ``url``, by path; by listing, without asking for each."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return {name: file_stamp(join(url, name)) for name in list_files(url)}
    with _explained(url, "listing"):
        fs.invalidate_cache()
        root = path.rstrip("/") + "/"
        found = fs.find(path, detail=True)
    return {
        str(name).removeprefix(root): f"{info['size']} {info.get('ETag') or info.get('mtime')}"
        for name, info in sorted(found.items())
    }


def file_size(url: str) -> int:
    """Bytes of one file, without reading it."""
    fs, path = filesystem(url)
    with _explained(url, "looking it up"):
        return int(fs.size(path))


def size_if_there(url: str) -> int | None:
    """Bytes of one file, None when there is none; of a file that is there by one request."""
    fs, path = filesystem(url)
    with _explained(url, "looking it up"):
        fs.invalidate_cache()
        try:
            return int(fs.size(path))
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class Span:
    """Some bytes of a file: from ``start`` to before ``stop``."""

    url: str
    start: int
    stop: int


def read_spans(spans: Sequence[Span]) -> list[bytes]:
    """The bytes of every span; object storage is asked for all at once. Raises as :func:`use_spans`."""
    return use_spans(spans, lambda _, content: content)


def use_spans(spans: Sequence[Span], use: Callable[[int, bytes], Found]) -> list[Found]:
    """What ``use`` makes of the number and the bytes of every span; object storage is asked for all at once.

    What ``use`` refuses by an IntegrityError is fetched again from object storage, a few times: parts of objects have
    no tag, and what was damaged on its way is whole where it lies.

    Raises:
        IntegrityError: a file is missing or too short: who asks for a span knows that it should be there. Or what
            ``use`` raised last.
    """
    found: dict[int, Found] = {}
    waiting = list(range(len(spans)))
    for attempt in range(_ATTEMPTS):
        refused: dict[int, IntegrityError] = {}
        for k, content in zip(waiting, _contents([spans[k] for k in waiting]), strict=True):
            try:
                if len(content) != spans[k].stop - spans[k].start:
                    raise IntegrityError(
                        f"{spans[k].url}: is damaged (shorter than recorded); `pngnoise verify` lists all damage"
                    )
                found[k] = use(k, content)
            except IntegrityError as error:
                refused[k] = error
        waiting = list(refused)
        if waiting and (attempt == _ATTEMPTS - 1 or is_local(spans[waiting[0]].url)):
            raise refused[waiting[0]]
        if not waiting:
            break
    return [found[k] for k in range(len(spans))]


def _contents(spans: Sequence[Span]) -> list[bytes]:
    """What there is of every span."""
    if not spans:
        return []
    for span in spans:
        if not 0 <= span.start <= span.stop:
            raise IntegrityError(f"{span.url}: is damaged (a record names bytes {span.start} to {span.stop} of it)")
    fs, _ = filesystem(spans[0].url)
    if isinstance(fs, LocalFileSystem):
        found: list[Any] = [_read_local(span) for span in spans]
    else:
        paths = [filesystem(span.url)[1] for span in spans]
        starts, stops = [s.start for s in spans], [s.stop for s in spans]
        found = fs.cat_ranges(paths, starts, stops, on_error="return")
    for k, (span, content) in enumerate(zip(spans, found, strict=True)):
        if isinstance(content, FileNotFoundError):
            raise IntegrityError(f"{span.url}: is missing; `pngnoise verify` lists what else is")
        if isinstance(content, BaseException):
            if not _beyond_the_end(content):
                with _explained(span.url, "reading"):
                    raise content
            found[k] = b""
    return [bytes(content) for content in found]


def _beyond_the_end(error: BaseException) -> bool:
    """Whether object storage says that a file ends before a span begins (HTTP 416)."""
    return _http_status(error) == 416


def _http_status(error: BaseException) -> int | None:
    """What object storage answered, where an error comes from such an answer."""
    cause = error if isinstance(error, ClientError) else error.__cause__
    return int(cause.response["ResponseMetadata"]["HTTPStatusCode"]) if isinstance(cause, ClientError) else None


def _writer_of(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """The token of whoever created an object. Requests are repeated at many levels, none of which knows of all."""
    bucket, key, _ = fs.split_path(path)
    found = fs.call_s3("head_object", Bucket=bucket, Key=key)["Metadata"].get(_WRITER)
    return None if found is None else str(found)


def _read_local(span: Span) -> bytes | OSError:
    try:
        with Path(filesystem(span.url)[1]).open("rb", buffering=0) as file:
            if span.stop > os.fstat(file.fileno()).st_size:
                return b""  # too short; pread would first take the memory that a damaged record asks for
            return os.pread(file.fileno(), span.stop - span.start, span.start)
    except OSError as error:
        return error


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(url)
    with _explained(url, "looking it up"):
        fs.invalidate_cache()
        return bool(fs.exists(path))


def list_files(url: str, closed: list[str] | None = None, outside: list[str] | None = None) -> list[str]:
    """Paths below ``url`` (relative, sorted, all depths); empty when nothing is there.

    Links to local folders are followed; one to a folder that it lies in, or to a place outside of ``url``, is listed as
    a file. ``closed`` takes the names of folders that may not be listed, without it they are an error; ``outside``
    those of links that leave ``url``, which are not listed then.
    """
    fs, path = filesystem(url)
    with _explained(url, "listing"):
        fs.invalidate_cache()
        root, local = path.rstrip("/") + "/", isinstance(fs, LocalFileSystem)
        if local and not fs.exists(path):
            return []
        if local and fs.isdir(path):
            return sorted(_walk(path, url, closed, outside))
        return sorted(str(found).removeprefix(root) for found in fs.find(path))


def _walk(root: str, url: str, closed: list[str] | None, outside: list[str] | None) -> Iterator[str]:
    """Files below a local folder, through links too that stay in it."""
    linked = 0
    waiting = [("", frozenset({os.path.realpath(root)}))]  # and the folders that it lies in, as they are on disk
    while waiting:
        folder, above = waiting.pop()
        try:
            listed = os.scandir(Path(root, folder))
        except PermissionError:
            if closed is None or not folder:
                raise
            closed.append(folder.rstrip("/"))
            continue
        with listed as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_symlink() and Path(entry.path).exists() and leaves(entry.path, root):
                    if outside is None:
                        yield name
                    else:
                        outside.append(name)
                    continue
                if not (Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()):
                    yield name
                    continue
                real = os.path.realpath(entry.path)
                if real in above:
                    yield name
                    continue
                linked += entry.is_symlink()
                if linked > _MAX_LINKS:
                    raise UserError(f"{url}: holds more than {_MAX_LINKS} links to folders; remove those in {folder}")
                waiting.append((f"{name}/", above | {real}))


def write_bytes(url: str, content: bytes) -> None:
    """Publish a file whole: temporary name and rename locally, one PUT on object storage."""
    fs, path = filesystem(url)
    with _explained(url, "writing"):
        if not isinstance(fs, LocalFileSystem):
            try:
                fs.pipe_file(path, content, **_kind(path, fs))
            except FileNotFoundError as error:  # of the bucket, or of an upload in parts whose end was not heard of
                raise TransientError(f"{url}: writing failed ({error}); check the bucket") from error
            count(BYTES_WRITTEN, len(content))
            return
        for attempt in range(_ATTEMPTS):
            try:
                with _whole_beside(Path(path), content) as working:
                    working.replace(path)
                count(BYTES_WRITTEN, len(content))
                return
            except FileNotFoundError:  # another run of the same work was finished meanwhile, and swept
                if attempt == _ATTEMPTS - 1:
                    raise


def write_inside(root: str, name: str, content: bytes) -> None:
    """:func:`write_bytes` of a file below ``root``. Raises UserError when a link on its way there leads elsewhere."""
    top = local_path(root)
    if top is not None and leaves((top / name).parent, top):
        raise UserError(f"{join(root, name.rpartition('/')[0])}: {LEAVES}")
    write_bytes(join(root, name), content)


def _kind(path: str, fs: fsspec.AbstractFileSystem) -> dict[str, str]:
    """What object storage is to say of a page, so that a browser shows it and does not save it."""
    return {"ContentType": "text/html; charset=utf-8"} if "s3" in fs.protocol and path.endswith(".html") else {}


@contextmanager
def _whole_beside(target: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside ``target`` that holds the content, on the disk and not in a cache; gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    working = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        with working.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield working
    finally:
        working.unlink(missing_ok=True)


def create_bytes(url: str, content: bytes) -> bool:
    """Publish a file whole unless one of that name is there; returns whether it was published. Of several writers at
    once one succeeds.

    Object storage has to know ``If-None-Match`` (Amazon's does since 2024, MinIO too): a server that ignores it lets
    the last of several writers win.
    """
    fs, path = filesystem(url)
    token = secrets.token_hex(8)
    with _explained(url, "writing"):
        try:
            if isinstance(fs, LocalFileSystem):
                _create_local(Path(path), content)
            else:
                fs.pipe_file(path, content, mode="create", Metadata={_WRITER: token})
        except OSError as error:
            # s3fs turns 412 (there is one) and 409 (another writer is at it) into OSErrors with these causes
            if isinstance(error, FileExistsError) or _http_status(error) in (409, 412):
                # It may be ours: the answer to a write that succeeded can be lost, and the write is then repeated.
                return not isinstance(fs, LocalFileSystem) and _writer_of(fs, path) == token
            raise
    count(BYTES_WRITTEN, len(content))
    return True


def _create_local(path: Path, content: bytes) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            with _whole_beside(path, content) as working:
                try:
                    os.link(working, path)  # unlike a rename it fails when there is one
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    with path.open("xb"):  # whoever creates the name may fill it
                        working.replace(path)
            return
        except FileNotFoundError:  # another run of the same work was finished meanwhile, and swept
            if attempt == _ATTEMPTS - 1:
                raise


def write_if_other(url: str, content: bytes) -> None:
    """As :func:`write_bytes`, unless that is what lies there."""
    if read_if_there(url) != content:
        write_bytes(url, content)


def sweep(url: str) -> None:
    """Delete what killed writers left below a local folder: temporary files that were never renamed."""
    root = local_path(url)
    if root is not None:
        for path in [*root.rglob(f".*{_TEMPORARY}"), *root.rglob("*.partial")]:
            path.unlink(missing_ok=True)


def remove(url: str) -> None:
    """Delete a file or folder; nothing happens when it is absent."""
    fs, path = filesystem(url)
    with _explained(url, "deleting"):
        fs.invalidate_cache()
        if isinstance(fs, LocalFileSystem) and Path(path).is_symlink():
            Path(path).unlink()  # and not what it means
        elif fs.exists(path):
            _delete(fs, path)


def _delete(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """A file by the one request for that; a folder by those that delete many at once.

    Ceph 16 judges the latter by the bucket and not by the objects, and refuses them to who may delete objects only.
    """
    if fs.isfile(path):
        fs.rm_file(path)
        return
    try:
        fs.rm(path, recursive=True)
    except PermissionError:
        if isinstance(fs, LocalFileSystem):
            raise
        for name in fs.find(path):
            fs.rm_file(name)


def sha256(content: bytes) -> str:
    """Hexadecimal digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def read_json(url: str) -> dict[str, Any]:
    """A JSON object. Raises UserError when absent, IntegrityError when it is not one."""
    try:
        content = decode_json(read_bytes(url))
    except ValueError as error:
        raise IntegrityError(f"{url}: is not valid JSON ({error}); it is damaged") from None
    if not isinstance(content, dict):
        raise IntegrityError(f"{url}: holds no JSON object; it is damaged")
    return content


def encode_json(content: dict[str, Any]) -> bytes:
    """A JSON object with sorted keys, so that equal contents are equal bytes."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(url: str, content: dict[str, Any]) -> None:
    """Publish a JSON object (:func:`encode_json`)."""
    write_bytes(url, encode_json(content))


def open_array(url: str) -> zarr.Array[Any]:
    """An existing Zarr v3 array, read only. Version 2 knows pickled objects, and a dataset may come from anyone."""
    with _explained(url, "opening the array"):
        path = local_path(url)
        if path is not None:
            return zarr.open_array(LocalStore(path, read_only=True), mode="r", zarr_format=3)
        store = FsspecStore.from_url(url, storage_options={"config_kwargs": _S3_CONFIG}, read_only=True)
        return zarr.open_array(store, mode="r", zarr_format=3)
