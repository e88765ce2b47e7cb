"""The main job on object storage that goes wrong: nothing is lost, nothing wrong is published, retries are bounded, and
what is told names an object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
from torch import nn

from pngmodel.bundle import write_bundle
from pngmodel.errors import IntegrityError, TransientError, UserError
from tasks.corpus.inspection import verify
from tasks.corpus.plan import CorpusParameters
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import ingest
from tasks.models.registry import add_version
from tasks.stores.commits import PartWriter
from tasks.stores.corpus_store import Corpus
from tasks.stores.io import filesystem as files
from tasks.stores.io import objects
from tasks.stores.model_registry import Registered
from tests.faults.proxy import FAULTS, ROTTEN, FaultyProxy
from tests.faults.results import keep
from tests.servers import s3_on_loopback

BUCKET = "s3://noise"
TRIES, IMAGES = 12, 2
SHARE = dict.fromkeys(FAULTS, 0.05) | {"error 500": 0.025, "SlowDown": 0.025, "time-out": 0.01}
COMMITS = {"catalogue": "catalogue.json", "patches": "store.json", "corpus": "corpus.json"}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def server(environment: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-speaking server without faults; time-outs of the product are shortened, its number of tries is its own."""
    with s3_on_loopback() as url:
        environment.setenv("AWS_ENDPOINT_URL", url)
        environment.setattr(files, "REQUEST", files.REQUEST | {"read_timeout": 2})
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("noise")
        yield url
    s3fs.S3FileSystem.clear_instance_cache()


def through(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the product speak to ``address`` from now on."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    s3fs.S3FileSystem.clear_instance_cache()


class Job:
    """The main job, step by step; every error is kept."""

    def __init__(self, root: str, images: str, bundle: Path, made: Callable[[CorpusParameters], Any]) -> None:
        self.root, self.images, self.bundle, self.made = root, images, bundle, made
        self.errors: list[UserError] = []
        self.starts: Counter[str] = Counter()

    def run(self) -> None:
        """All steps, each repeated as a user would repeat it."""
        catalogue, patches, corpus = (f"{self.root}/{name}" for name in COMMITS)
        self._step("ingest", lambda: ingest(self.images, "folders", catalogue))
        self._step("extract", lambda: extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=16))
        asked = CorpusParameters(
            output=corpus, model="heteroscedastic", references=patches, clean=f"{self.images}/clean", crop=32, shard=8
        )
        self._step("generate", lambda: self.made(asked))
        self._step("verify", lambda: verify(corpus))
        self._step("read", lambda: self._read(corpus))
        self._step("register", lambda: add_version(str(self.bundle), f"{self.root}/models/small"))

    def _step(self, name: str, task: Callable[[], Any]) -> None:
        for _ in range(TRIES):
            self.starts[name] += 1
            try:
                task()
            except UserError as error:
                self.errors.append(error)
            else:
                return
        raise AssertionError(f"{name} does not end: {[str(error) for error in self.errors[-TRIES:]]}")

    @staticmethod
    def _read(corpus: str) -> None:
        for kept in (0, 2):
            opened = Corpus.open(corpus, kept_shards=kept)
            for pair in range(0, len(opened), 7):
                clean, noisy = opened.read(pair)
                assert not np.array_equal(clean, noisy)


def stored(prefix: str) -> dict[str, bytes]:
    storage = s3fs.S3FileSystem(skip_instance_cache=True)
    found = {str(p).removeprefix(f"noise/{prefix}/"): storage.cat_file(p) for p in storage.find(f"noise/{prefix}")}
    return {name: content for name, content in found.items() if not name.endswith(("sources.json", "failed.json"))}


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    location = folder / "bundle"
    write_bundle(nn.Linear(2, 2), location, kind="pngnoise-model", model={"size": 2}, training={}, card="# card\n")
    return location


@pytest.fixture(scope="module")
def stored_images(server: str, images: str) -> str:
    """The images on object storage: what is read from there, too, may arrive damaged."""
    for side in ("noisy", "clean"):
        for name in sorted(path.name for path in Path(images, side).iterdir())[:IMAGES]:
            s3fs.S3FileSystem().put(f"{images}/{side}/{name}", f"noise/images/{side}/{name}")
    return f"{BUCKET}/images"


@pytest.fixture(scope="module")
def calm(
    server: str, stored_images: str, bundle: Path, made: Callable[[CorpusParameters], Any]
) -> dict[str, dict[str, bytes]]:
    """What the job makes undisturbed."""
    Job(f"{BUCKET}/calm", stored_images, bundle, made).run()
    return {name: stored(f"calm/{name}") for name in COMMITS}


@pytest.fixture
def disturbed(
    server: str,
    calm: dict[str, dict[str, bytes]],
    stored_images: str,
    bundle: Path,
    made: Callable[[CorpusParameters], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[dict[str, float], int, str], tuple[FaultyProxy, Job]]:
    """Run the job through a faulty proxy, and compare what it made with what is made undisturbed."""

    def run(rates: dict[str, float], seed: int, location: str) -> tuple[FaultyProxy, Job]:
        with FaultyProxy(server, rates, seed) as proxy:
            through(proxy.url, monkeypatch)
            job = Job(f"{BUCKET}/{location}", stored_images, bundle, made)
            job.run()
            through(server, monkeypatch)
        for name, wanted in calm.items():
            found = stored(f"{location}/{name}")
            assert sorted(found) == sorted(wanted)
            assert [name for name in wanted if found[name] != wanted[name]] == []
        assert Registered(f"{BUCKET}/{location}/models", "small").versions() == [1]
        return proxy, job

    return run


def check_told(job: Job) -> None:
    for error in job.errors:
        assert "s3://noise/" in str(error), error


def survive(rates: dict[str, float], seed: int, disturbed: Callable) -> None:
    proxy, job = disturbed(rates, seed, f"storm-{seed}")
    told = f"seed {seed}: {proxy.counted.total()} faults in {proxy.requests.total()} requests: {dict(proxy.counted)}; "
    told += f"starts {dict(job.starts)}; errors {[type(error).__name__ for error in job.errors]}"
    keep("storage.md", told)
    assert proxy.counted.total() > 0
    check_told(job)


def test_all_faults_at_once_change_nothing(disturbed: Callable) -> None:
    survive(SHARE | {"SlowDown": 0.005}, 0, disturbed)  # each one slows the client down for seconds


@pytest.mark.parametrize(
    ("name", "sent"),
    # aiohttp sends a PUT once more when a kept connection is reset
    [("error 500", 1 + 3), ("SlowDown", 1 + 3), ("reset before the answer", 2 * (1 + 3))],
)
def test_tries_are_bounded_and_the_object_is_named(
    name: str, sent: int, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyProxy(server, {name: 1.0}, only="broken") as proxy:
        through(proxy.url, monkeypatch)
        files.write_bytes(f"{BUCKET}/whole.bin", b"1")
        few = {"retries": {"max_attempts": 3, "mode": "standard"}}
        monkeypatch.setattr(files, "REQUEST", files.REQUEST | few)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(TransientError, match=r"s3://noise/a/broken\.bin: writing failed"):
            files.write_bytes(f"{BUCKET}/a/broken.bin", b"1")
        with pytest.raises(TransientError, match=r"s3://noise/a/broken\.bin: reading failed"):
            files.read_bytes(f"{BUCKET}/a/broken.bin")
        assert proxy.requests["PUT", "/noise/a/broken.bin"] == sent  # botocore retries, and nothing else does
        assert files.read_bytes(f"{BUCKET}/whole.bin") == b"1"


@pytest.mark.parametrize("name", ["flipped bit", "truncated body"])
def test_an_object_that_always_arrives_damaged_is_named(
    name: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_bytes(f"{BUCKET}/a/x.bin", bytes(1000))
    with FaultyProxy(server, {name: 1.0}) as proxy:
        through(proxy.url, monkeypatch)
        with pytest.raises(TransientError, match=r"s3://noise/a/x\.bin: .*arrived damaged"):
            files.read_bytes(f"{BUCKET}/a/x.bin")
        assert proxy.requests["GET", "/noise/a/x.bin"] < 10


def test_a_conditional_write_whose_answer_is_lost_knows_its_own_content(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{BUCKET}/a/once.json"
    with FaultyProxy(server, {"lost answer to a write": 1.0}, only="once", most=1) as proxy:
        through(proxy.url, monkeypatch)
        assert files.create_bytes(location, b"ours")
        assert proxy.counted == {"lost answer to a write": 1}
        assert proxy.requests["PUT", "/noise/a/once.json"] == 2
        assert not files.create_bytes(location, b"ours")  # there was no doubt this time
        assert not files.create_bytes(location, b"theirs")
    assert files.read_bytes(location) == b"ours"


@pytest.mark.parametrize("known", [False, True], ids=["other tags", "tags that fit"])
def test_an_object_that_is_always_the_same_damage(known: bool, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is damaged in storage, if the server's tags are known to fit; if they never did they are something else."""
    monkeypatch.setattr(objects, "_TAGS_FIT", set())
    files.write_bytes(f"{BUCKET}/a/rotten.bin", b"good")
    with FaultyProxy(server, {ROTTEN: 1.0}, only="rotten") as proxy:
        through(proxy.url, monkeypatch)
        if known:
            files.write_bytes(f"{BUCKET}/a/whole.bin", b"good")
            assert files.read_bytes(f"{BUCKET}/a/whole.bin") == b"good"
            with pytest.raises(IntegrityError, match=r"s3://noise/a/rotten\.bin: is damaged in storage"):
                files.read_bytes(f"{BUCKET}/a/rotten.bin")
            assert files.read_if_whole(f"{BUCKET}/a/rotten.bin") is None
        else:
            assert files.read_bytes(f"{BUCKET}/a/rotten.bin") == b"food"
        assert proxy.requests["GET", "/noise/a/rotten.bin"] == 2 + 2 * known


def test_a_plan_that_is_there_is_never_written_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor tried to: not every server knows conditional writes, and a finished store may be read-only."""
    planned = PartWriter(f"{BUCKET}/planned", {"kind": "corpus", "seed": 0})
    assert planned.begin() is None
    with FaultyProxy(server, {}) as proxy:
        through(proxy.url, monkeypatch)
        assert planned.begin() == {"kind": "corpus", "seed": 0, "key": planned.key}
        with pytest.raises(UserError, match=r"holds a different corpus; different settings: seed"):
            PartWriter(planned.url, {"kind": "corpus", "seed": 1}).begin()
        assert not [path for method, path in proxy.requests if method == "PUT"]
