"""Whole S3 objects: reads are checked against the ETag, conditional writes have exactly one winner."""

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
"""Buckets whose server uses the MD5 of the content as ETag."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_WRITER = "writer"  # metadata of an object


def fetch(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Read an object with one request; repeat it if the body is incomplete or does not match its ETag.

    s3fs requests the size first, splits large files, lists the folder of a missing file, and ignores ETags. Here whole
    files are read in parallel, so one request per file is as fast.
    """
    bucket, key, version = fs.split_path(path)
    known: dict[str, str] = {"VersionId": version} if version else {}

    async def ask() -> tuple[dict[str, Any], bytes | Exception]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **known)
        try:
            return answer, bytes(await answer["Body"].read())
        except (FSTimeoutError, HTTPClientError, aiohttp.ClientPayloadError, ConnectionResetError) as error:
            return answer, error  # other errors concern the request, which botocore has retried
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
        ) in damaged:  # transmission does not damage the same byte twice
            if bucket in _TAGS_FIT or not content:
                raise IntegrityError(f"s3://{path}: is damaged in storage: it does not match its ETag")
            return content  # this server's ETags are not MD5
        damaged.add(digest)
    raise TransientError(
        f"s3://{path}: arrived damaged {CONTENT_ATTEMPTS} times, each time differently; check the network"
    )


def _is_tagged(answer: dict[str, Any], content: bytes) -> bool:
    """Whether content matches its ETag. Multipart uploads and encrypted objects have other ETags and always match."""
    tag = str(answer.get("ETag", "")).strip('"')
    own = str(answer.get("ServerSideEncryption", "AES256")) == "AES256" and "SSECustomerAlgorithm" not in answer
    return not (own and _MD5.fullmatch(tag)) or hashlib.md5(content, usedforsecurity=False).hexdigest() == tag


def create(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> bool:
    """Create an object; returns False if it exists.

    If the response to a conditional write is lost, the retry finds an object: a token in the metadata shows whether
    this call wrote it.
    """
    token = secrets.token_hex(8)
    try:
        fs.pipe_file(path, content, mode="create", Metadata={_WRITER: token})
    except OSError as error:
        # s3fs turns 412 (exists) and 409 (another writer is active) into OSErrors with these causes
        if http_status(error) not in (409, 412):
            raise
        bucket, key, _ = fs.split_path(path)
        return bool(fs.call_s3("head_object", Bucket=bucket, Key=key)["Metadata"].get(_WRITER) == token)
    return True


def http_status(error: BaseException) -> int | None:
    """HTTP status of a storage error, None if it has none."""
    answer = _answer(error)
    return int(answer["ResponseMetadata"]["HTTPStatusCode"]) if answer else None


def error_code(error: BaseException) -> str | None:
    """S3 error code, such as NoSuchUpload; None if the error has none."""
    answer = _answer(error)
    return str(answer["Error"].get("Code")) if answer else None


def _answer(error: BaseException) -> dict[str, Any] | None:
    cause = error if isinstance(error, ClientError) else error.__cause__
    return dict(cause.response) if isinstance(cause, ClientError) else None
