"""A real S3-speaking server on loopback, for everything that stores or reads there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import s3fs

from tests.servers import s3_on_loopback


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_on_loopback() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """An empty bucket called noise; the product learns of it by the environment alone."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "fake")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    storage = s3fs.S3FileSystem()
    storage.mkdir("noise")
    yield storage
    storage.rm("noise", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
