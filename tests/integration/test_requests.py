"""How often object storage is asked: requests cost money and time, so their number per shard is part of the product."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import s3fs
from aiobotocore.httpsession import AIOHTTPSession

from tasks.corpus.generate import begin, make_pending, pending
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores.io.filesystem import read_bytes, read_if_there, size_if_there


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """HTTP requests by method; those that list are LIST."""
    counts: Counter[str] = Counter()
    original = AIOHTTPSession.send

    async def send(self: Any, request: Any) -> Any:
        counts["LIST" if "list-type" in request.url else request.method] += 1
        return await original(self, request)

    monkeypatch.setattr(AIOHTTPSession, "send", send)
    return counts


def test_a_file_is_read_or_found_missing_by_one_request(bucket: s3fs.S3FileSystem, requests: Counter[str]) -> None:
    bucket.pipe_file("noise/there", b"content")
    requests.clear()
    assert read_bytes("s3://noise/there") == b"content"
    assert read_if_there("s3://noise/folder/missing") is None
    assert requests == {"GET": 2}
    assert size_if_there("s3://noise/there") == 7
    assert requests == {"GET": 2, "HEAD": 1}
    assert size_if_there("s3://noise/folder/missing") is None


def test_requests_per_shard(
    bucket: s3fs.S3FileSystem, requests: Counter[str], folders: tuple[Path, Path], patches: str
) -> None:
    """Three objects and a look for the part make a shard; nothing is listed for it."""
    parameters = CorpusParameters(
        output="s3://noise/corpus", model="heteroscedastic", references=patches, clean=str(folders[0] / "clean")
    ).model_copy(update={"crop": 32, "shard": 4})
    plan = plan_corpus(parameters)
    shards = plan.layout.shards
    sizes = plan_corpus(parameters.model_copy(update={"check": "sizes"}))
    with open_cluster(ClusterConfig()) as inline:
        begin(plan)
        requests.clear()
        make_pending(plan, range(shards), inline)
        assert requests == {"PUT": 3 * shards, "GET": shards}
        for looking, each in ((plan, {"GET": 3 * shards}), (sizes, {"GET": shards, "HEAD": 2 * shards})):
            requests.clear()
            assert pending(looking, inline) == []
            once = requests.pop("LIST") + requests.pop("HEAD", 0) - each.get("HEAD", 0)
            assert once <= 6  # the folder of parts and the commit record, however many shards there are
            assert requests["GET"] == each["GET"]
