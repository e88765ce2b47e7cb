"""Whole files on local disk and object storage. Every write is atomic."""

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
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # exFAT, SMB, some FUSE mounts have no links
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ATTEMPTS = 5  # another run may sweep the temporary file


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of ``url`` and the path in it. A URL without a scheme is a local path.

    Members of archives have chained URLs: ``zip://folder/a.png::s3://bucket/set.zip``.
    """
    check_url(url)
    chain = url.split("::")
    s3: dict[str, Any] = {"config_kwargs": REQUEST} if chain[-1].startswith("s3://") else {}
    options = s3 if len(chain) == 1 else {"s3": s3} if s3 else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: this kind of URL is not supported ({error}); use a path, file:// or s3://") from None
    if "s3" in fs.protocol:
        fs.retries = 1  # botocore retries requests, and nothing else does
    return fs, str(path)


def join(url: str, *parts: str) -> str:
    """Append path parts to ``url``."""
    return "/".join([url.rstrip("/"), *parts])


def local_path(url: str) -> Path | None:
    """The local path of ``url``; None on object storage."""
    fs, path = filesystem(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def is_local(url: str) -> bool:
    """Whether ``url`` (of a chained URL: the archive) is on local disk."""
    return local_path(url.split("::")[-1]) is not None


@contextmanager
def explained(url: str, doing: str) -> Iterator[None]:
    """Translate storage errors in the block into errors with URL and remedy. ``doing``: for example ``"reading"``."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{url}: no such file") from None
    except PermissionError as error:
        why = str(error) if any(error.args) else "access denied"  # some servers give no reason
        raise UserError(
            f"{url}: permission denied while {doing} ({why}); check the owner or the credentials"
        ) from error
    except UnicodeEncodeError:
        raise UserError(f"{url!r}: the path contains an invalid character; correct it") from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise UserError(f"{url}: the file system is read-only ({doing}); choose another location") from error
        if error.errno in _FULL:
            raise UserError(
                f"{url}: no space left while {doing}; free some or choose another output, then run the same "
                "command again: it resumes"
            ) from error
        raise TransientError(f"{url}: {doing} failed ({error})") from error
    except (BotoCoreError, ClientError, aiohttp.ClientError) as error:
        raise TransientError(
            f"{url}: {doing} failed ({error}); check AWS_ENDPOINT_URL, the bucket and credentials"
        ) from error


def read_bytes(url: str) -> bytes:
    """Content of a file. Raises UserError if it is missing or cannot be read."""
    fs, path = filesystem(url)
    with explained(url, "reading"):
        return _whole(fs, path)


def read_if_there(url: str) -> bytes | None:
    """Content of a file, None if it does not exist. One request; checking first would take two and a listing."""
    fs, path = filesystem(url)
    with explained(url, "reading"):
        try:
            return _whole(fs, path)
        except FileNotFoundError:
            return None


def read_if_whole(url: str) -> bytes | None:
    """As :func:`read_if_there`; None also if the stored content is damaged and must be made again."""
    try:
        return read_if_there(url)
    except IntegrityError:
        return None


def _whole(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    content = objects.fetch(fs, path) if "s3" in fs.protocol else bytes(fs.cat_file(path))
    count(BYTES_READ, len(content))
    return content


def is_file(url: str) -> bool:
    """Whether ``url`` is a file."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        return bool(fs.isfile(path))


def file_size(url: str) -> int:
    """Size of a file in bytes."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        return int(fs.size(path))


def size_if_there(url: str) -> int | None:
    """Size of a file in bytes, None if it does not exist. One request if it does."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        try:
            return int(fs.size(path))
        except FileNotFoundError:
            return None


def exists(url: str) -> bool:
    """Whether a file or folder exists."""
    fs, path = filesystem(url)
    with explained(url, "looking it up"):
        fs.invalidate_cache()
        return bool(fs.exists(path))


def write_bytes(url: str, content: bytes) -> None:
    """Write a file atomically: temporary name and rename locally, one PUT on object storage."""
    fs, path = filesystem(url)
    with explained(url, "writing"):
        if not isinstance(fs, LocalFileSystem):
            try:
                fs.pipe_file(path, content, **_kind(path, fs))
            except FileNotFoundError as error:
                if objects.error_code(error) != "NoSuchUpload":
                    raise
                # The response to CompleteMultipartUpload was lost; the upload starts over.
                raise TransientError(f"{url}: writing failed ({error}); run the same command again") from error
            count(BYTES_WRITTEN, len(content))
            return
        for attempt in range(_ATTEMPTS):
            try:
                with _whole_beside(Path(path), content) as working:
                    working.replace(path)
                count(BYTES_WRITTEN, len(content))
                return
            except FileNotFoundError:  # another run finished and swept temporary files
                if attempt == _ATTEMPTS - 1:
                    raise


def write_inside(root: str, name: str, content: bytes) -> None:
    """Write a file below ``root`` atomically. Raises UserError if a symbolic link leads out of ``root``."""
    top = local_path(root)
    if top is not None and leaves((top / name).parent, top):
        raise UserError(f"{join(root, name.rpartition('/')[0])}: {LEAVES}")
    write_bytes(join(root, name), content)


def _kind(path: str, fs: fsspec.AbstractFileSystem) -> dict[str, str]:
    """Content type of HTML pages, so that browsers show them instead of downloading."""
    return {"ContentType": "text/html; charset=utf-8"} if "s3" in fs.protocol and path.endswith(".html") else {}


@contextmanager
def _whole_beside(target: Path, content: bytes) -> Iterator[Path]:
    """A temporary file beside ``target`` with the content, synced to disk; deleted afterwards."""
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
    """Create a file atomically; returns False if it exists. Of several concurrent writers exactly one succeeds.

    Object storage must support ``If-None-Match`` (Amazon S3, MinIO and Ceph do): on a server that ignores it, the last
    writer wins.
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
                    os.link(working, path)  # unlike a rename, fails if the target exists
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    with path.open("xb"):  # whoever creates the name may write it
                        working.replace(path)
            return True
        except FileExistsError:
            return False
        except FileNotFoundError:  # another run finished and swept temporary files
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def write_if_other(url: str, content: bytes) -> None:
    """Write a file atomically, unless it has this content already."""
    if read_if_there(url) != content:
        write_bytes(url, content)


def sweep(url: str) -> None:
    """Delete temporary files that killed writers left below a local folder."""
    root = local_path(url)
    if root is not None:
        for path in [*root.rglob(f".*{_TEMPORARY}"), *root.rglob("*.partial")]:
            path.unlink(missing_ok=True)


def remove(url: str) -> None:
    """Delete a file or folder, if it exists."""
    fs, path = filesystem(url)
    with explained(url, "deleting"):
        fs.invalidate_cache()
        if isinstance(fs, LocalFileSystem) and Path(path).is_symlink():
            Path(path).unlink()  # not its target
        elif fs.exists(path):
            _delete(fs, path)


def _delete(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Delete a file with one request, a folder with bulk requests.

    Ceph 16 checks bulk deletion against the policy of the bucket, not of the objects: fall back to single requests.
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
    """sha256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_json(url: str) -> dict[str, Any]:
    """Read a JSON object. Raises UserError if the file is missing, IntegrityError if it is damaged."""
    try:
        content = decode_json(read_bytes(url))
    except ValueError as error:
        raise IntegrityError(f"{url}: is not valid JSON ({error}); it is damaged") from None
    if not isinstance(content, dict):
        raise IntegrityError(f"{url}: is not a JSON object; it is damaged")
    return content


def encode_json(content: dict[str, Any]) -> bytes:
    """Encode a JSON object with sorted keys, so that equal content gives equal bytes."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_json(url: str, content: dict[str, Any]) -> None:
    """Write a JSON object atomically (:func:`encode_json`)."""
    write_bytes(url, encode_json(content))


def open_array(url: str) -> zarr.Array[Any]:
    """Open a Zarr v3 array read-only. Version 2 is refused: it supports pickled objects."""
    with explained(url, "opening the array"):
        path = local_path(url)
        if path is not None:
            return zarr.open_array(LocalStore(path, read_only=True), mode="r", zarr_format=3)
        store = FsspecStore.from_url(url, storage_options={"config_kwargs": REQUEST}, read_only=True)
        return zarr.open_array(store, mode="r", zarr_format=3)
