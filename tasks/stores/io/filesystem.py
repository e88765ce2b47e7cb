"""One path API for local folders and object storage; every write is whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import zarr
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.implementations.local import LocalFileSystem
from zarr.storage import FsspecStore, LocalStore

from pngmodel.errors import IntegrityError, TransientError, UserError
from pngmodel.jsontext import decode_json
from tasks.runtime.retries import REQUEST
from tasks.runtime.run_metrics import BYTES_READ, BYTES_WRITTEN, count
from tasks.stores.io import objects
from tasks.stores.io.urls import LEAVES, check_url, leaves

_TEMPORARY = ".writing"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # exFAT, SMB, some FUSE mounts
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ATTEMPTS = 5  # at a file that another run sweeps


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of ``url`` and the path in it. A URL without a scheme is a local path.

    Members of archives have chained URLs: ``zip://folder/a.png::s3://bucket/set.zip``.
    """
    check_url(url)
    chain = url.split("::")
    s3: dict[str, Any] = {"config_kwargs": REQUEST} if chain[-1].startswith("s3://") else {}
    options = s3 if len(chain) == 1 else {"s3": s3} if s3 else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: this kind of URL cannot be opened ({error}); use a path, file:// or s3://") from None
    if "s3" in fs.protocol:
        fs.retries = 1  # botocore retries requests, and nothing else does
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
def explained(url: str, doing: str) -> Iterator[None]:
    """Turns errors of storage in the block into ones that name place and remedy; ``doing``: reading, writing, ..."""
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
    with explained(url, "reading"):
        return _whole(fs, path)


def read_if_there(url: str) -> bytes | None:
    """The content of one file, None when there is none: one request, where asking first would be two and a listing."""
    fs, path = filesystem(url)
    with explained(url, "reading"):
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
    content = objects.fetch(fs, path) if "s3" in fs.protocol else bytes(fs.cat_file(path))
    count(BYTES_READ, len(content))
    return content


def is_file(url: str) -> bool:
    """Whether a file is there, and no folder."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        return bool(fs.isfile(path))


def file_size(url: str) -> int:
    """Bytes of one file, without reading it."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        return int(fs.size(path))


def size_if_there(url: str) -> int | None:
    """Bytes of one file, None when there is none; of a file that is there by one request."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        try:
            return int(fs.size(path))
        except FileNotFoundError:
            return None


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        return bool(fs.exists(path))


def write_bytes(url: str, content: bytes) -> None:
    """Publish a file whole: temporary name and rename locally, one PUT on object storage."""
    fs, path = filesystem(url)
    with explained(url, "writing"):
        if not isinstance(fs, LocalFileSystem):
            try:
                fs.pipe_file(path, content, **_kind(path, fs))
            except FileNotFoundError as error:
                if objects.error_code(error) != "NoSuchUpload":
                    raise
                # The answer to the end of an upload in parts was lost: the whole is written anew.
                raise TransientError(f"{url}: writing failed ({error}); run the same command again") from error
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
    with explained(url, "writing"):
        if isinstance(fs, LocalFileSystem):
            created = _create_local(Path(path), content)
        else:
            created = objects.create(fs, path, content)
    count(BYTES_WRITTEN, len(content) if created else 0)
    return created


def _create_local(path: Path, content: bytes) -> bool:
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
            return True
        except FileExistsError:
            return False
        except FileNotFoundError:  # another run of the same work was finished meanwhile, and swept
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


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
    with explained(url, "deleting"):
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
    with explained(url, "opening the array"):
        path = local_path(url)
        if path is not None:
            return zarr.open_array(LocalStore(path, read_only=True), mode="r", zarr_format=3)
        store = FsspecStore.from_url(url, storage_options={"config_kwargs": REQUEST}, read_only=True)
        return zarr.open_array(store, mode="r", zarr_format=3)
