"""Inspect and verify tell what a place holds, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pngmodel.bundle import save_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from tasks.corpus.inspection import inspect, kind_of, verify
from tasks.models.prompt_bank import BankParameters, build_bank

KINDS = ("catalogue", "patch store", "corpus", "model bundle", "prompt bank")


@pytest.fixture
def locations(catalogue: str, patches: str, published: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """One of each kind."""
    published(tmp_path / "corpus")
    small = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}
    model = NoiseModel(PRESETS["tiny"].model_copy(update=small))
    save_bundle(model, tmp_path / "bundle", training={"data": "none"}, card="# card")
    build_bank(BankParameters(references=patches, output=str(tmp_path / "bank"), model="heteroscedastic", shard=16))
    made_here = (tmp_path / name for name in ("corpus", "bundle", "bank"))
    return dict(zip(KINDS, (Path(catalogue), Path(patches), *made_here), strict=True))


def test_every_kind_is_recognised_and_whole(locations: dict[str, Path]) -> None:
    for kind, location in locations.items():
        assert kind_of(str(location)) == kind
        found, verified = inspect(str(location)), verify(str(location))
        json.dumps(found)
        assert found["kind"] == verified["kind"] == kind
        assert found["digest"] == verified["digest"]
        assert verified["verified"] is True
    assert inspect(str(locations["catalogue"]))["camera"] == {"GP": 2, "None": 2}
    assert inspect(str(locations["patch store"]))["split"] == {"train": 18, "validation": 18}
    assert inspect(str(locations["patch store"]))["iso"] == {"100": 27, "800": 9}
    assert len(inspect(str(locations["patch store"]))["noise"]["std"]) == 3
    assert inspect(str(locations["patch store"]))["shards"] == 8
    assert inspect(str(locations["corpus"]))["accepted"] == 36
    assert inspect(str(locations["prompt bank"]))["split"] == {"train": 18, "validation": 18}
    assert inspect(str(locations["prompt bank"]))["iso"] == {"100": 27, "800": 9}
    assert inspect(str(locations["model bundle"]))["training"] == {"data": "none"}


def test_damage_is_named(locations: dict[str, Path]) -> None:
    for kind, name in (
        ("catalogue", "catalogue.parquet"),
        ("patch store", "noisy/c/2/0/0/0"),
        ("patch store", "parts/00004.parquet"),
        ("corpus", "clean/c/0/0/0/0"),
        ("corpus", "manifest/00000.parquet"),
        ("corpus", "shards/00000.parquet"),
        ("corpus", "noisy/c/0/2/0/0/0"),
        ("corpus", "clean/zarr.json"),
        ("model bundle", "model.safetensors"),
        ("prompt bank", "parts/00001.parquet"),
        ("prompt bank", "prompts/00002.bin"),
    ):
        path = locations[kind] / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=str(path)):
            verify(str(locations[kind]))
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
        assert verify(str(locations[kind]))["verified"] is True


def test_unfinished_stores_say_what_to_do(locations: dict[str, Path]) -> None:
    for kind, commit in (("patch store", "store.json"), ("corpus", "corpus.json"), ("prompt bank", "bank.json")):
        (locations[kind] / commit).unlink()
        for look in (inspect, verify):
            with pytest.raises(UserError, match=rf"this {kind} is unfinished.*same command again"):
                look(str(locations[kind]))


def test_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    for location in (tmp_path, tmp_path / "nothing", tmp_path / "x.txt"):
        with pytest.raises(
            UserError, match="contains no corpus, patch store, catalogue, prompt bank, export or model bundle"
        ):
            inspect(str(location))
