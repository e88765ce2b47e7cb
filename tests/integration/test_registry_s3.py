"""The registry on object storage: conditional writes, several writers, models used by name."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3fs
from torch import nn

from pngmodel.bundle import verify_bundle, write_bundle
from pngmodel.errors import IntegrityError, TransientError, UserError
from tasks.corpus.inspection import inspect, verify
from tasks.models.generators import bundle_folder
from tasks.models.promotion import PromoteParameters, promote, roll_back
from tasks.models.registry import add_version, fetch_version, list_models, show_model
from tasks.stores.io.filesystem import create_bytes, read_bytes
from tasks.stores.io.listing import list_files
from tasks.stores.model_registry import Registered

PLACE = "s3://noise/models/small"


def make(folder: Path, number: float) -> str:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, number)
    nn.init.zeros_(module.bias)
    return write_bundle(module, folder, kind="pngnoise-model", model={"size": 1}, training={}, card="# card\n")


def test_a_file_is_created_once(bucket: s3fs.S3FileSystem) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda k: create_bytes("s3://noise/a/b.json", b"%d" % k), range(8)))
    assert sum(won) == 1
    assert read_bytes("s3://noise/a/b.json") == b"%d" % won.index(True)
    with pytest.raises((UserError, TransientError), match="s3://nobody/x"):
        create_bytes("s3://nobody/x", b"")


def test_versions_champion_and_names(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    folders = [tmp_path / str(k) for k in range(3)]
    digests = [make(folder, k) for k, folder in enumerate(folders)]
    with ThreadPoolExecutor(6) as pool:  # each of them twice, all at once
        found = list(pool.map(lambda folder: add_version(str(folder), PLACE), [*folders, *folders]))
    assert sum(f["added"] for f in found) == 3
    registered = Registered("s3://noise/models", "small")
    numbers = {registered.version(n).digest: n for n in registered.versions()}
    assert sorted(numbers.values()) == [1, 2, 3]
    assert set(numbers) == set(digests)

    (tmp_path / "gate.yaml").write_text("limits: {model.kld: {max: 0.1}}\nno_worse: {model.kld: {better: lower}}\n")
    for kld, digest in zip((0.05, 0.04, 0.06), digests, strict=True):
        record = {"protocol": "noise-A", "model": {"digest": digest}, "metrics": {"model": {"kld": kld}}}
        (tmp_path / "record.json").write_text(json.dumps(record))
        fields = {"version": f"{PLACE}@{numbers[digest]}", "record": str(tmp_path / "record.json")}
        parameters = PromoteParameters(rules=str(tmp_path / "gate.yaml"), **fields)
        if kld == 0.06:
            with pytest.raises(UserError, match=r"model\.kld is 0\.06, .* the champion's 0\.04"):
                promote(parameters)
            break
        assert promote(parameters)["version"] == numbers[digest]
        assert verify_bundle(bundle_folder(f"{PLACE}@champion")) == digest
        assert inspect(f"{PLACE}@champion")["digest"] == verify(f"{PLACE}@champion")["digest"] == digest
    assert roll_back(PLACE, "why")["digest"] == digests[0]
    assert json.loads(read_bytes("s3://noise/models/small/champion.json"))["digest"] == digests[0]
    assert list_models("s3://noise/models")[0]["champion"]["version"] == numbers[digests[0]]
    assert len(show_model(PLACE)["moves"]) == 3

    fetched = fetch_version(f"{PLACE}@champion", str(tmp_path / "fetched"))
    assert sorted(p.name for p in Path(fetched["folder"]).iterdir()) == list_files(registered.bundle(digests[0]))
    bucket.rm(f"noise/models/small/bundles/{digests[1]}/model.safetensors")
    with pytest.raises(IntegrityError, match=r"is damaged: model\.safetensors is missing; add the same bundle again"):
        fetch_version(f"{PLACE}@{numbers[digests[1]]}", str(tmp_path / "other"))
    assert add_version(str(folders[1]), PLACE)["added"] is False
    assert fetch_version(f"{PLACE}@{numbers[digests[1]]}", str(tmp_path / "other"))["digest"] == digests[1]
    bucket.rm("noise/models/small/versions/000002.json")
    with pytest.raises(UserError, match="has no version 2; it has versions 1, 3"):
        bundle_folder(f"{PLACE}@2")
