"""Object storage: the whole chain against an S3-speaking server on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs
import torch
from torch.utils.data import DataLoader

from pngmodel.bundle import save_bundle
from pngmodel.errors import IntegrityError, TransientError, UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from tasks.corpus.exports.export import ExportParameters, export_corpus
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.inspection import inspect, verify
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets.clean_images import open_clean
from tasks.datasets.extraction import Geometry, extract_patches, finalise
from tasks.datasets.ingest import ingest
from tasks.models.generators import load_generator, model_digest
from tasks.models.prompt_bank import BankParameters, build_bank
from tasks.stores.io import filesystem as files
from tasks.stores.io.listing import list_files
from tasks.stores.prompt_bank import PromptBank
from tasks.stores.torch_dataset import PatchDataset, ShuffledOrder

BUCKET = "s3://noise"


@pytest.fixture
def stored(bucket: s3fs.S3FileSystem) -> Callable[[str], dict[str, bytes]]:
    """Every object below a prefix."""

    def read(prefix: str) -> dict[str, bytes]:
        root = f"noise/{prefix}/"
        bucket.invalidate_cache()
        found = {str(p).removeprefix(root): bucket.cat_file(p) for p in bucket.find(root)}
        found.pop("sources.json", None)  # which names places
        return found

    return read


def test_from_images_to_a_verified_corpus(
    bucket: s3fs.S3FileSystem,
    stored: Callable[[str], dict[str, bytes]],
    folders: tuple[Path, Path],
    patches: str,
    tmp_path: Path,
    tree: Callable[[Any], dict[str, bytes]],
    made: Callable,
) -> None:
    root, rules = folders
    bucket.put(str(root), "noise/raw", recursive=True)
    found = ingest(f"{BUCKET}/raw", str(rules), f"{BUCKET}/catalogue")
    assert (found["pairs"], found["rejected"]) == (4, [])
    assert found["digest"] == inspect(str(tmp_path / "catalogue"))["digest"]  # wherever it lies
    extract_patches(f"{BUCKET}/catalogue", f"{BUCKET}/patches", geometry=Geometry(size=32), shard=8)
    assert stored("patches") == tree(patches)
    assert verify(f"{BUCKET}/patches")["pairs"] == 36
    assert len(open_clean(f"{BUCKET}/raw/clean").images) == 4

    parameters = CorpusParameters(
        output=f"{BUCKET}/corpus",
        model="heteroscedastic",
        references=f"{BUCKET}/patches",
        clean=f"{BUCKET}/raw/clean",
        crop=32,
        shard=8,
    )
    assert made(parameters)[1] == {"made": 5, "kept": 0}
    assert verify(f"{BUCKET}/corpus")["verified"] is True
    whole = stored("corpus")

    bucket.rm("noise/corpus/corpus.json")
    bucket.rm("noise/corpus/parts/00003.parquet")
    bucket.pipe_file("noise/corpus/clean/c/1/0/0/0", b"garbage")
    with pytest.raises(UserError, match=r"s3://noise/corpus: this corpus is unfinished"):
        verify(f"{BUCKET}/corpus")
    assert made(parameters)[1] == {"made": 2, "kept": 3}
    assert stored("corpus") == whole

    local = parameters.model_copy(
        update={"output": str(tmp_path / "corpus"), "references": patches, "clean": str(root / "clean")}
    )
    made(local)
    assert tree(tmp_path / "corpus") == whole

    bucket.rm("noise/corpus/noisy/c/0/2/0/0/0")
    with pytest.raises(IntegrityError, match=r"s3://noise/corpus/noisy/c/0/2/0/0/0: missing"):
        verify(f"{BUCKET}/corpus")
    with pytest.raises(UserError, match="holds a different corpus"):
        made(parameters.model_copy(update={"seed": 1}))


@pytest.mark.parametrize("form", ["webdataset", "folders"])
def test_an_export_from_and_to_object_storage(
    bucket: s3fs.S3FileSystem,
    stored: Callable[[str], dict[str, bytes]],
    folders: tuple[Path, Path],
    patches: str,
    tmp_path: Path,
    tree: Callable[[Any], dict[str, bytes]],
    made: Callable,
    form: Any,
) -> None:
    common = {"model": "heteroscedastic", "references": patches, "clean": str(folders[0] / "clean"), "crop": 32}
    made(CorpusParameters(output=str(tmp_path / "corpus"), shard=16, **common))
    bucket.put(str(tmp_path / "corpus"), "noise/corpus", recursive=True)
    export_corpus(ExportParameters(corpus=str(tmp_path / "corpus"), output=str(tmp_path / "export"), format=form))
    there = ExportParameters(corpus=f"{BUCKET}/corpus", output=f"{BUCKET}/export", format=form)
    assert export_corpus(there)["pairs"] == 36
    whole = stored("export")
    assert whole == tree(tmp_path / "export")
    lost = next(name for name in whole if name.endswith((".tar", ".parquet", ".png")))
    bucket.rm(f"noise/export/{lost}")
    with pytest.raises(IntegrityError, match=rf"s3://noise/export/{lost}: missing"):
        verify(f"{BUCKET}/export")
    assert export_corpus(there)["shares"] == {"made": 1, "kept": 2}
    assert stored("export") == whole


@pytest.mark.parametrize("whole_shards", [False, True])
def test_workers_train_from_object_storage(
    bucket: s3fs.S3FileSystem, catalogue: str, patches: str, whole_shards: bool
) -> None:
    url = f"{BUCKET}/patches"
    for part in (2, 1):
        extract_patches(catalogue, url, geometry=Geometry(size=32), shard=8, parts=f"{part}/2")
    with pytest.raises(UserError, match=r"s3://noise/patches/store\.json: missing"):
        PatchDataset(url)
    finalise(url)
    data, local = PatchDataset(url, whole_shards=whole_shards), PatchDataset(patches)
    order = ShuffledOrder(data, 2, by_shard=whole_shards)
    loader = DataLoader(data, 6, sampler=order, num_workers=2, multiprocessing_context="spawn")
    seen = []
    for batch in loader:
        for k, index in enumerate(batch["index"].tolist()):
            assert torch.equal(batch["clean"][k], local[index]["clean"])
            assert torch.equal(batch["noisy"][k], local[index]["noisy"])
            seen.append(index)
    assert seen == list(order)
    bucket.rm("noise/patches/noisy/c/3/0/0/0")
    bucket.pipe_file("noise/patches/clean/c/1/0/0/0", b"short")
    for pair, words in ((17, "noisy/c/3/0/0/0: is missing"), (8, "clean/c/1/0/0/0: is damaged")):
        with pytest.raises(IntegrityError, match=words):
            PatchDataset(url, whole_shards=whole_shards).__getitems__([0, pair, 35])


def test_a_model_bundle_on_object_storage_and_its_successor(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    import torch

    small = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}
    url = f"{BUCKET}/models/mine"
    digests = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = NoiseModel(PRESETS["tiny"].model_copy(update=small))
        digests.append(save_bundle(model, tmp_path / "bundle", training={}, card="# card"))
        bucket.put(str(tmp_path / "bundle") + "/", "noise/models/mine/", recursive=True)
        assert model_digest(url) == digests[-1]
        assert load_generator(url, "cpu", digests[-1]).digest == digests[-1]  # type: ignore[attr-defined]
    assert digests[0] != digests[1]
    with pytest.raises(UserError, match=r"s3://noise/models/none: no model bundle found"):
        model_digest(f"{BUCKET}/models/none")


def test_files(bucket: s3fs.S3FileSystem) -> None:
    location = f"{BUCKET}/a/b.bin"
    assert not files.exists(location)
    files.write_bytes(location, b"1")
    files.write_bytes(location, b"2")
    assert files.read_bytes(location) == b"2"
    assert list_files(f"{BUCKET}/a") == ["b.bin"]
    files.remove(f"{BUCKET}/a")
    assert list_files(f"{BUCKET}/a") == []
    with pytest.raises(UserError, match=r"s3://noise/a/b\.bin: no such file"):
        files.read_bytes(location)


def test_a_bucket_that_does_not_exist_is_named(bucket: s3fs.S3FileSystem) -> None:
    with pytest.raises(UserError, match=r"s3://nobody/x") as told:
        files.write_bytes("s3://nobody/x", b"1")
    assert not isinstance(told.value, TransientError)  # it will not come by itself


def test_a_prompt_bank(
    bucket: s3fs.S3FileSystem,
    stored: Callable[[str], dict[str, bytes]],
    folders: tuple[Path, Path],
    patches: str,
    tmp_path: Path,
    tree: Callable[[Any], dict[str, bytes]],
) -> None:
    fields = {"references": patches, "model": "heteroscedastic", "shard": 16}
    for output in (f"{BUCKET}/bank", str(tmp_path / "bank")):
        build_bank(BankParameters(output=output, **fields))
    assert stored("bank") == tree(tmp_path / "bank")
    assert verify(f"{BUCKET}/bank")["entries"] == inspect(f"{BUCKET}/bank")["entries"] == 36
    common = {"model": "heteroscedastic", "clean": str(folders[0] / "clean"), "crop": 32}
    for name, references in (("direct", patches), ("banked", f"{BUCKET}/bank")):
        make_corpus_shards(plan_corpus(CorpusParameters(output=str(tmp_path / name), references=references, **common)))
    assert tree(tmp_path / "banked" / "noisy") == tree(tmp_path / "direct" / "noisy")
    bucket.rm("noise/bank/prompts/00001.bin")
    with pytest.raises(IntegrityError, match=r"00001\.bin: missing"):
        verify(f"{BUCKET}/bank")
    with pytest.raises(IntegrityError, match=r"00001\.bin: is missing"):
        PromptBank(f"{BUCKET}/bank").read(20)
    assert build_bank(BankParameters(output=f"{BUCKET}/bank", **fields))["shards"] == {"made": 1, "kept": 2}
    assert stored("bank") == tree(tmp_path / "bank")
