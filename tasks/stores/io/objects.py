"""Whole objects of S3-speaking storage: fetched until they are what their tags say, created by exactly one writer."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

import aiohttp
import fsspec
from botocore.exceptions import ClientError, HTTPClientError
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from pngmodel.errors import IntegrityError, TransientError
from tasks.runtime.retries import CONTENT_ATTEMPTS

_TAGS_FIT: set[str] = set()
"""Buckets whose server is known to give the MD5 of the content as its tag."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_WRITER = "writer"  # metadata of an object


def fetch(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """An object by one request; asked for again when it broke off or is not what its tag says.

    s3fs' own way asks for the size first, to fetch large files by several requests at once, lists the folder of a
    missing one, and does not look at tags. What runs side by side here is whole files, so one request each is as fast.
    """
    bucket, key, version = fs.split_path(path)
    known: dict[str, str] = {"VersionId": version} if version else {}

    async def ask() -> tuple[dict[str, Any], bytes | Exception]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **known)
        try:
            return answer, bytes(await answer["Body"].read())
        except (FSTimeoutError, HTTPClientError, aiohttp.ClientPayloadError, ConnectionResetError) as error:
            return answer, error  # others are of the request, which was repeated often enough
        finally:
            answer["Body"].close()

    damaged: set[str] = set()
    for attempt in range(CONTENT_ATTEMPTS):
        fetched: tuple[dict[str, Any], bytes | Exception] = sync(fs.loop, ask)
        answer, content = fetched
        if isinstance(content, Exception):
            if attempt == CONTENT_ATTEMPTS - 1:
                raise content
            continue
        if _is_tagged(answer, content):
            _TAGS_FIT.add(bucket)
            return content
        if (
            digest := hashlib.sha256(content).hexdigest()
        ) in damaged:  # what goes wrong on the way does not do so twice in one place
            if bucket in _TAGS_FIT or not content:
                raise IntegrityError(f"s3://{path}: is damaged where it lies: it is not what its tag says")
            return content  # of a server whose tags are something else
        damaged.add(digest)
    raise TransientError(
        f"s3://{path}: arrived damaged {CONTENT_ATTEMPTS} times, each time differently; check the network"
    )


def _is_tagged(answer: dict[str, Any], content: bytes) -> bool:
    """Whether an object is what its tag says, where that is an MD5: not of uploads in parts, nor under a key."""
    tag = str(answer.get("ETag", "")).strip('"')
    own = str(answer.get("ServerSideEncryption", "AES256")) == "AES256" and "SSECustomerAlgorithm" not in answer
    return not (own and _MD5.fullmatch(tag)) or hashlib.md5(content, usedforsecurity=False).hexdigest() == tag


def create(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> bool:
    """Write an object unless there is one; whether it was written by this call.

    A conditional write whose answer is lost is repeated, at so many levels that none of them knows of all, and is then
    told that there is one: a token in its metadata says whether that is its own.
    """
    token = secrets.token_hex(8)
    try:
        fs.pipe_file(path, content, mode="create", Metadata={_WRITER: token})
    except OSError as error:
        # s3fs turns 412 (there is one) and 409 (another writer is at it) into OSErrors with these causes
        if http_status(error) not in (409, 412):
            raise
        bucket, key, _ = fs.split_path(path)
        return bool(fs.call_s3("head_object", Bucket=bucket, Key=key)["Metadata"].get(_WRITER) == token)
    return True


def http_status(error: BaseException) -> int | None:
    """What object storage answered, where an error comes from such an answer."""
    answer = _answer(error)
    return int(answer["ResponseMetadata"]["HTTPStatusCode"]) if answer else None


def error_code(error: BaseException) -> str | None:
    """The name that object storage gives to an error, e.g. NoSuchUpload, where it comes from such an answer."""
    answer = _answer(error)
    return str(answer["Error"].get("Code")) if answer else None


def _answer(error: BaseException) -> dict[str, Any] | None:
    cause = error if isinstance(error, ClientError) else error.__cause__
    return dict(cause.response) if isinstance(cause, ClientError) else None
