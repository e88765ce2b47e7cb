"""More draws of a published corpus: they are added in place, and nothing that is there changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pngmodel.errors import UserError
from tasks.corpus.gate import load_rules
from tasks.corpus.generate import begin, make_pending, pending
from tasks.corpus.maintenance import collect_garbage, orphans
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.corpus.publish import judge
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores import corpus_store as corpus_format
from tasks.stores.corpus_store import Corpus
from tasks.stores.io.filesystem import sha256

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Copy = Callable[..., Path]
Tree = Callable[[Any], dict[str, bytes]]


def contents(corpus: Corpus) -> list[str]:
    """Digests of all pairs, as they are read."""
    return [sha256(b"".join(image.tobytes() for image in corpus.read(k))) for k in range(len(corpus))]


REWRITTEN = {"plan.json", "zarr.json", "noisy/zarr.json", "corpus.json", "gate.json", "README.md", "report.html"}


@pytest.mark.parametrize("split_manifest", [False, True])
def test_two_draws_become_four(
    parameters: Make,
    made: Made,
    published: Copy,
    tree: Tree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    split_manifest: bool,
) -> None:
    at_once = published
    if split_manifest:
        monkeypatch.setattr(corpus_format, "ROWS_PER_MANIFEST", 16)
        at_once = lambda output, scale: made(parameters(output, scale=scale))  # noqa: E731
    at_once(tmp_path / "c", 2)
    before, seen = tree(tmp_path / "c"), contents(Corpus.open(str(tmp_path / "c")))
    extended, shards = made(parameters(tmp_path / "c", scale=4))
    assert shards == {"made": 10, "kept": 10}
    assert extended.pairs == 144
    after = tree(tmp_path / "c")
    rewritten = {name for name in before if after.get(name) != before[name]}
    assert rewritten == REWRITTEN | ({"croissant.json"} & set(before))
    at_once(tmp_path / "at_once", 4)
    assert tree(tmp_path / "at_once") == after
    corpus = Corpus.open(str(tmp_path / "c"))
    assert contents(corpus)[:72] == seen
    assert list(corpus.verify()) == []


def test_the_old_draws_are_read_until_the_new_record_is_there(
    parameters: Make, published: Copy, tmp_path: Path
) -> None:
    url = str(published(tmp_path / "c", 2))
    seen = contents(Corpus.open(url))
    opened = Corpus.open(url)
    plan = plan_corpus(parameters(url, scale=4))
    begin(plan)
    with open_cluster(ClusterConfig()) as cluster:
        todo = pending(plan, cluster)
        assert todo == list(range(10, 20))
        for index in todo:
            make_pending(plan, [index], cluster)
            assert contents(Corpus.open(url)) == seen
        assert list(Corpus.open(url).verify()) == []
        assert orphans(url) == []  # the shards on their way are nobody's rubbish
        judge(plan, load_rules("default", baseline=True), cluster)
    assert contents(Corpus.open(url)) == contents(opened) == seen
    assert Corpus.open(url).table.num_rows == 72


def test_draws_that_the_gate_refuses_leave_the_corpus_as_it_was(
    parameters: Make, made: Made, published: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(published(tmp_path / "c", 2))
    # Rules may not differ from those that it was published under, so the figures have to.
    bad = {"kld": 9.0, "lag1_error": 0.0, "cross_channel_error": 0.0, "std_ratio": 1.0, "pairs": 1}
    monkeypatch.setattr("tasks.corpus.publish.compare", lambda plan, pairs: {"GP": bad})
    (tmp_path / "gate.yaml").write_text("max_kld: 1.0\n")
    with pytest.raises(UserError, match=r"camera GP: kld 9.*gate-failed\.json"):
        made(parameters(url, scale=4, gate=str(tmp_path / "gate.yaml")))
    corpus = Corpus.open(url)
    assert list(corpus.verify()) == []
    assert len(contents(corpus)) == 72
    evidence = json.loads((tmp_path / "c" / "gate-failed.json").read_text())
    assert evidence["passed"] is False
    assert evidence["samples"] == 144
    found = collect_garbage(url, delete=False)
    assert found["orphans"] == [f"{url}/gate-failed.json"]


def test_fewer_draws_are_refused_and_nothing_changes(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path
) -> None:
    published(tmp_path / "c", 2)
    before = tree(tmp_path / "c")
    with pytest.raises(UserError, match=r"holds 2 samples of each clean image, 1 requested.*column 'repeat' below 1"):
        made(parameters(tmp_path / "c", scale=1))
    assert tree(tmp_path / "c") == before


def test_an_interrupted_extension_goes_on(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path
) -> None:
    published(tmp_path / "whole", 3)
    published(tmp_path / "c")
    plan = plan_corpus(parameters(tmp_path / "c", scale=3))
    begin(plan)
    with open_cluster(ClusterConfig()) as cluster:
        make_pending(plan, [6, 13], cluster)
    (tmp_path / "c" / "noisy" / "c" / "2" / "3" / "0" / "0" / "0").write_bytes(b"torn")
    _, shards = made(parameters(tmp_path / "c", scale=3))
    assert shards == {"made": 9, "kept": 6}
    assert tree(tmp_path / "c") == tree(tmp_path / "whole")


def test_a_damaged_old_shard_takes_the_corpus_back(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path
) -> None:
    published(tmp_path / "whole", 2)
    published(tmp_path / "c")
    (tmp_path / "c" / "clean" / "c" / "1" / "0" / "0" / "0").write_bytes(b"torn")
    plan = plan_corpus(parameters(tmp_path / "c", scale=2))
    begin(plan)
    with open_cluster(ClusterConfig()) as cluster:
        assert pending(plan, cluster) == [1, *range(5, 10)]
    with pytest.raises(UserError, match="the store is not finished"):
        Corpus.open(str(tmp_path / "c"))
    made(parameters(tmp_path / "c", scale=2))
    assert tree(tmp_path / "c") == tree(tmp_path / "whole")


def test_draws_differ_and_clean_images_are_shared(published: Copy, tmp_path: Path) -> None:
    corpus = Corpus.open(str(published(tmp_path / "c", 3)))
    first, second, third = (corpus.read(k) for k in (7, 43, 79))
    for other in (second, third):
        np.testing.assert_array_equal(other[0], first[0])
        assert (other[1] != first[1]).mean() > 0.5
    assert (second[1] != third[1]).mean() > 0.5
    assert {row["repeat"] for row in corpus.table.to_pylist()[36:72]} == {1}
