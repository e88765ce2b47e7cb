"""Croissant metadata, read by MLCommons' own library."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from tasks.corpus.plan import CorpusParameters
from tasks.stores.corpus_store import MANIFEST_SCHEMA, Corpus
from tasks.stores.io.filesystem import sha256

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]


@pytest.mark.parametrize("mode", ["pairs", "noisy", "recipe"])
def test_it_is_valid(parameters: Make, made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    made(parameters(tmp_path / "c", mode=mode, scale=2))
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "c" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    # what would name a place, a time or a person is left to whoever publishes it
    missing = {line.split('"')[1].split("/")[-1] for line in dataset.metadata.ctx.issues.warnings}
    assert missing <= {"url", "datePublished", "creator", "citation", "citeAs", "version"}
    assert "not standard" not in caplog.text
    assert dataset.metadata.license == ["CC0; unknown (a folder of images carries none)"]
    content = json.loads((tmp_path / "c" / "croissant.json").read_text())
    assert str(tmp_path) not in json.dumps(content)
    for item in content["distribution"]:
        if item["@type"] == "cr:FileObject":
            assert item["sha256"] == sha256((tmp_path / "c" / item["contentUrl"]).read_bytes())
        else:
            assert list((tmp_path / "c").glob(item["includes"][0]))
    assert Corpus.open(str(tmp_path / "c")).record.files["croissant.json"] == sha256(
        (tmp_path / "c" / "croissant.json").read_bytes()
    )


def test_its_records_are_those_of_the_manifest(published: Callable[..., Path], tmp_path: Path) -> None:
    published(tmp_path / "c", 2)
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "c" / "croissant.json"))
    found = list(dataset.records("samples"))
    rows = Corpus.open(str(tmp_path / "c")).table.to_pylist()
    assert len(found) == len(rows) == 72
    assert sorted(record["samples/sample"] for record in found) == list(range(72))
    for record in found:
        row = rows[record["samples/sample"]]
        assert record["samples/clean"].decode() == row["clean"]
        assert record["samples/seed"] == row["seed"]
        assert record["samples/noise_std"] == pytest.approx(row["noise_std"])
        assert bool(record["samples/accepted"]) == row["accepted"]
    assert set(found[0]) == {f"samples/{name}" for name in MANIFEST_SCHEMA.names}
