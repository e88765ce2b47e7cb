"""Several processes at one location of object storage at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tests.faults.test_together import (
    test_a_reader_sees_nothing_or_a_whole_corpus,
    test_of_two_configurations_one_gets_the_place,
    test_the_same_corpus_twice_at_once,
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
