"""Several processes at one location of object storage at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tasks.corpus.inspection import verify
from tasks.stores.corpus_store import Corpus
from tests.faults.disk import WORDS
from tests.faults.test_together import (
    ended,
    start,
    test_a_reader_sees_nothing_or_a_whole_corpus,
    test_of_two_configurations_one_gets_the_place,
)
from tests.servers import s3_on_loopback

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def location(environment: pytest.MonkeyPatch) -> Iterator[str]:
    environment.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with s3_on_loopback() as url:
        environment.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("noise")
        yield "s3://noise/corpora"
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_same_corpus_twice_at_once(images: str, location: str) -> None:
    runs = [start(images, f"{location}/same") for _ in range(2)]
    for code, said in map(ended, runs):
        assert code in (0, WORDS), said
        if code:  # what one run has published another one need not make
            assert f"{location}/same" in said
            assert "error:" in said
    last = start(images, f"{location}/same")
    assert ended(last)[0] == 0
    assert verify(f"{location}/same")["verified"]
    alone = start(images, f"{location}/alone")
    assert ended(alone)[0] == 0
    assert Corpus.open(f"{location}/same").digest == Corpus.open(f"{location}/alone").digest
