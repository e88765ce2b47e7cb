"""Publication: equal recipes give equal bytes, the commit record comes last."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pngmodel.errors import UserError
from tasks.corpus.gate import GateRules
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.corpus.publish import already_published, judge, refuse_other_rules
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores.corpus_store import Corpus
from tasks.stores.io.tables import decode_table

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Copy = Callable[..., Path]
Tree = Callable[[Any], dict[str, bytes]]


def test_two_runs_in_different_places_give_equal_bytes(
    parameters: Make, made: Made, tree: Tree, tmp_path: Path
) -> None:
    first, _ = made(parameters(tmp_path / "here"))
    assert already_published(plan_corpus(parameters(tmp_path / "here"))) == first
    second, _ = made(parameters(tmp_path / "some" / "where" / "else"))
    record = json.loads((tmp_path / "here" / "corpus.json").read_text())
    assert first.digest == second.digest == record["digest"]
    assert first.pairs == record["layout"]["pairs"] == 36
    assert record["protocol"] == "noise-A"
    assert first.metrics == second.metrics
    expected, found = tree(tmp_path / "here"), tree(tmp_path / "some" / "where" / "else")
    assert [k for k in expected if expected[k] != found.get(k)] == []
    assert set(found) == set(expected)
    published = {
        "corpus.json",
        "manifest/00000.parquet",
        "shards/00000.parquet",
        "gate.json",
        "README.md",
        "report.html",
    }
    assert published | {"zarr.json", "clean.parquet"} < set(found)


@pytest.mark.parametrize(
    "lost",
    [
        ["corpus.json", "parts/00002.parquet"],
        ["corpus.json", "report.html", "gate.json", "noisy/c/0/1/0/0/0", "clean/zarr.json", "manifest/00000.parquet"],
    ],
)
def test_an_interrupted_run_is_finished_byte_for_byte(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path, lost: list[str]
) -> None:
    published(tmp_path / "c")
    before = tree(tmp_path / "c")
    for name in lost:
        (tmp_path / "c" / name).unlink()
    _, shards = made(parameters(tmp_path / "c"))
    assert shards["made"] == sum("parts/" in n or "/c/" in n for n in lost)
    assert tree(tmp_path / "c") == before


def test_the_manifest_describes_the_arrays(published: Copy, tmp_path: Path) -> None:
    corpus = Corpus.open(str(published(tmp_path / "c", 2)))
    rows = corpus.table.to_pylist()
    assert [r["sample"] for r in rows] == list(range(72)) == list(range(len(corpus)))
    for k in (0, 35, 36, 71):
        clean, noisy = corpus.read(k)
        assert sha256(clean.tobytes() + noisy.tobytes()).hexdigest() == rows[k]["sha256"]
        assert clean.shape == (3, 32, 32)
    assert {(r["accepted"], r["reason"]) for r in rows} == {(True, None)}
    assert list(corpus.verify()) == []


def test_rejected_samples_stay_with_their_reason(parameters: Make, made: Made, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("std_ratio: [0.97, 1.03]\nmax_rejected_share: 1.0\nmax_lag1_error: null\n")
    published, _ = made(parameters(tmp_path / "c", gate=str(tmp_path / "gate.yaml")))
    location = tmp_path / "c" / "manifest/00000.parquet"
    rows = decode_table(location.read_bytes(), str(location)).to_pylist()
    rejected = [r for r in rows if not r["accepted"]]
    record = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert 0 < len(rejected) == published.rejected == record["rejected"]["std ratio"]
    assert record["accepted"] == 36 - len(rejected)
    assert all("std ratio: " in r["reason"] for r in rejected)
    assert all((r["reason"] is None) == r["accepted"] for r in rows)


def test_verify_finds_every_published_file(published: Copy, tmp_path: Path) -> None:
    published(tmp_path / "c")
    for name in ("manifest/00000.parquet", "gate.json", "README.md", "report.html"):
        path = tmp_path / "c" / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert [p for p in Corpus.open(str(tmp_path / "c")).verify() if name in p and "differs" in p]
        path.unlink()
        assert list(Corpus.open(str(tmp_path / "c")).verify()) == [f"{path}: missing"]
        path.write_bytes(content)


def test_what_was_published_is_recognised_while_it_is_whole(parameters: Make, published: Copy, tmp_path: Path) -> None:
    plan = plan_corpus(parameters(tmp_path / "c"))
    assert already_published(plan) is None
    published(tmp_path / "c")
    found = already_published(plan)
    assert found is not None
    assert found.digest == Corpus.open(str(tmp_path / "c")).digest
    (tmp_path / "c" / "README.md").write_text("edited")
    assert already_published(plan) is None


def test_other_gate_rules_are_not_passed_over(parameters: Make, published: Copy, tree: Tree, tmp_path: Path) -> None:
    published(tmp_path / "c")
    before = tree(tmp_path / "c")
    with pytest.raises(UserError, match=r"other rules of the quality gate.*gate\.json"):
        refuse_other_rules(plan_corpus(parameters(tmp_path / "c")), GateRules(max_saturated=0.5))
    assert tree(tmp_path / "c") == before


def test_nothing_is_published_with_a_shard_missing(parameters: Make, published: Copy, tmp_path: Path) -> None:
    published(tmp_path / "c")
    (tmp_path / "c" / "corpus.json").unlink()
    (tmp_path / "c" / "parts" / "00001.parquet").unlink()
    with open_cluster(ClusterConfig()) as cluster, pytest.raises(UserError, match="00001"):
        judge(plan_corpus(parameters(tmp_path / "c")), GateRules(), cluster)
    with pytest.raises(UserError, match=r"corpus\.json: missing: the store is not finished"):
        Corpus.open(str(tmp_path / "c"))


def test_the_report_opens_from_disk_and_the_card_tells_the_licence(published: Copy, tmp_path: Path) -> None:
    published(tmp_path / "c")
    report = (tmp_path / "c" / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "https://" not in report
    assert report.count("data:image/png;base64,") >= 5
    card = (tmp_path / "c" / "README.md").read_text()
    assert "CC0" in card
    assert "36 noisy/clean pairs" in card
    assert str(tmp_path) not in card + report


def test_what_a_killed_writer_left_is_swept(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path
) -> None:
    published(tmp_path / "a")
    published(tmp_path / "b")
    (tmp_path / "b" / "corpus.json").unlink()
    (tmp_path / "b" / "clean" / "c" / "0" / "0" / "0" / "0.1234.partial").write_bytes(b"torn")
    (tmp_path / "b" / ".gate.json.12ab.writing").write_bytes(b"torn")
    made(parameters(tmp_path / "b"))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_corpus_that_is_being_mended_is_not_published(parameters: Make, published: Copy, tmp_path: Path) -> None:
    published(tmp_path / "c")
    shard = tmp_path / "c" / "noisy" / "c" / "0" / "1" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    make_corpus_shards(plan_corpus(parameters(tmp_path / "c")))
    assert not (tmp_path / "c" / "corpus.json").exists()


def test_only_one_file_of_a_corpus_names_this_place(parameters: Make, made: Made, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "photos" / "good.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"torn")
    published, _ = made(parameters(tmp_path / "c", clean=str(tmp_path / "photos")))
    assert published.unused_clean == 1
    for path in (tmp_path / "c").rglob("*"):
        assert not path.is_file() or path.name == "sources.json" or str(tmp_path).encode() not in path.read_bytes(), (
            path
        )
