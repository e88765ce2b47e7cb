"""infra/policies/ on a server that enforces them: the product's work is done with these rights, and no more can be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pngmodel.errors import TransientError, UserError
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.maintenance import verify_corpus
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import ingest
from tasks.models.registry import add_version
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores.io.filesystem import create_bytes, exists, read_bytes, remove, write_bytes
from tasks.stores.io.listing import list_files
from tests.campaigns import ceph

POLICIES = Path(__file__).parents[2] / "infra" / "policies"
pytestmark = [
    pytest.mark.timeout(500),
    pytest.mark.skipif(bool(ceph.missing()), reason=f"no Ceph here to enforce them: {', '.join(ceph.missing())}"),
]
Become = Callable[[str], s3fs.S3FileSystem]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    started = ceph.Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        started.start()
        for role in ("worker", "reader", "nobody"):
            started.user(role)
        yield started
    finally:
        started.stop()


@pytest.fixture
def become(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Have the product act as a user, as it would by its environment; returns plain access as the same one."""

    def act(user: str, secret: str | None = None) -> s3fs.S3FileSystem:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret or ceph.SECRET.format(user))
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem()

    yield act
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def storage(become: Become) -> Iterator[Become]:
    """The bucket, with the policies of both roles."""
    owner = become("owner")
    owner.mkdir("pngnoise")
    policy: dict[str, Any] = {"Version": "2012-10-17", "Statement": []}
    for role in ("worker", "reader"):
        for statement in json.loads((POLICIES / f"{role}.json").read_text())["Statement"]:
            principal = {"AWS": [f"arn:aws:iam:::user/{role}"]}
            policy["Statement"].append(statement | {"Sid": f"{role}{statement['Sid']}", "Principal": principal})
    owner.call_s3("put_bucket_policy", Bucket="pngnoise", Policy=json.dumps(policy))
    yield become
    become("owner").rm("pngnoise", recursive=True)


def test_the_work_of_both_roles(
    storage: Become, folders: tuple[Path, Path], made: Any, tmp_path: Path, bundle: Path
) -> None:
    root = "s3://pngnoise"
    storage("worker")
    ingest(str(folders[0]), str(folders[1]), f"{root}/data/catalogue")
    extract_patches(f"{root}/data/catalogue", f"{root}/data/patches", geometry=Geometry(size=32), shard=8)
    asked = CorpusParameters(
        output=f"{root}/corpora/a",
        model="heteroscedastic",
        references=f"{root}/data/patches",
        clean=f"{root}/data/patches",
        crop=32,
        shard=16,
        alias="latest",
    )
    made(asked)
    add_version(str(bundle), f"{root}/models/m")
    assert create_bytes(f"{root}/evaluations/x", b"first")
    assert not create_bytes(f"{root}/evaluations/x", b"second")
    assert read_bytes(f"{root}/evaluations/x") == b"first"

    remove(f"{root}/corpora/a/parts/00001.parquet")  # lost: the commit record goes, and comes back
    assert make_corpus_shards(plan_corpus(asked)) == {"made": 1, "kept": 2}
    assert not exists(f"{root}/corpora/a/corpus.json")
    made(asked)

    storage("reader")
    with open_cluster(ClusterConfig()) as cluster:
        for name in ("a", "latest"):
            assert verify_corpus(f"{root}/corpora/{name}", cluster)["verified"]
    pairs = CorpusDataset(f"{root}/corpora/latest")
    assert pairs[0]["noisy"].shape == (3, 32, 32)
    assert "a/corpus.json" in list_files(f"{root}/corpora")
    for act in (
        lambda: write_bytes(f"{root}/corpora/a/corpus.json", b"{}"),
        lambda: remove(f"{root}/corpora/a/corpus.json"),
        lambda: read_bytes(f"{root}/data/patches/store.json"),
        lambda: read_bytes(f"{root}/models/m/versions/000001.json"),
        lambda: list_files(f"{root}/models"),
    ):
        with pytest.raises(UserError, match="permission denied while"):
            act()
    storage("worker")
    with open_cluster(ClusterConfig()) as cluster:
        assert verify_corpus(f"{root}/corpora/a", cluster)["verified"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    from torch import nn

    from pngmodel.bundle import write_bundle

    write_bundle(nn.Linear(2, 2), tmp_path / "bundle", kind="pngnoise-denoiser", model={}, training={}, card="")
    return tmp_path / "bundle"


def test_what_a_worker_may_not(storage: Become) -> None:
    storage("worker")
    write_bytes("s3://pngnoise/models/m/versions/000001.json", b"{}")
    with pytest.raises(UserError, match="permission denied while deleting"):
        remove("s3://pngnoise/models/m/versions/000001.json")
    assert read_bytes("s3://pngnoise/models/m/versions/000001.json") == b"{}"
    everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::pngnoise/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [everyone]})
    key = "models/m/versions/000001.json"
    tries: list[tuple[str, dict[str, Any]]] = [
        ("put_bucket_policy", {"Policy": policy}),
        ("delete_bucket_policy", {}),
        ("put_bucket_acl", {"ACL": "public-read"}),
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Suspended"}}),
        ("delete_bucket", {}),
        ("put_object_acl", {"Key": key, "ACL": "public-read"}),
        ("put_object", {"Key": "corpora/public", "ACL": "public-read", "Body": b""}),
        ("delete_object", {"Key": key}),
    ]
    for role in ("worker", "reader", "nobody"):
        files = storage(role)
        for action, given in tries:
            with pytest.raises(PermissionError):
                files.call_s3(action, Bucket="pngnoise", **given)


@pytest.mark.parametrize(
    ("user", "secret"), [("nobody", None), ("worker", "planted-wrong-secret"), ("stranger", "planted-wrong-secret")]
)
def test_wrong_keys_are_refused_in_words(storage: Become, user: str, secret: str | None) -> None:
    storage(user, secret)
    for act in (
        lambda: read_bytes("s3://pngnoise/corpora/a/corpus.json"),
        lambda: write_bytes("s3://pngnoise/corpora/a/corpus.json", b""),
        lambda: list_files("s3://pngnoise/corpora"),
        lambda: create_bytes("s3://pngnoise/x", b""),
    ):
        with pytest.raises((UserError, TransientError), match="credentials") as told:
            act()
        assert "planted" not in str(told.value)
