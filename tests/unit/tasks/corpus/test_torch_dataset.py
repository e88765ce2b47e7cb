"""Modes of a corpus, and the dataset over each: whatever is stored, the pairs are the same."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.maintenance import recorded_parameters, require_same_recipe
from tasks.corpus.parameters import CorpusParameters, Mode
from tasks.corpus.plan import plan_corpus
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.datasets.ingest import ingest
from tasks.stores.corpus_store import Corpus

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Tree = Callable[[Any], dict[str, bytes]]
MODES: tuple[Mode, ...] = ("pairs", "noisy", "recipe")
RULES = """\
dataset: modes
licence: CC0
noisy: noisy/(?P<pair>.+)\\.png
clean: clean/(?P<pair>.+)\\.png
"""


@pytest.fixture(scope="module")
def corpora(made: Made, pair: Callable, save: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same corpus of two draws in each mode, of clean images in the folder ``clean``."""
    root = tmp_path_factory.mktemp("modes")
    for seed in range(4):
        for side, image in zip(("noisy", "clean"), pair(seed), strict=True):
            save(root / side / f"{seed}.png", image)
    (root / "rules.yaml").write_text(RULES)
    ingest(str(root), str(root / "rules.yaml"), str(root / "catalogue"))
    for mode in MODES:
        made(
            CorpusParameters(
                output=str(root / f"c_{mode}"),
                model="heteroscedastic",
                references=str(root / "catalogue"),
                clean=str(root / "clean"),
                crop=32,
                shard=8,
                scale=2,
                mode=mode,
            )
        )
    return {"clean": str(root / "clean")} | {mode: str(root / f"c_{mode}") for mode in MODES}


def test_every_mode_gives_the_same_pairs(corpora: dict[str, str]) -> None:
    reference = Corpus.open(corpora["pairs"])
    for mode in MODES:
        data = CorpusDataset(corpora[mode])
        assert len(data) == 72
        for position in (0, 17, 35, 36, 71):
            clean, noisy = reference.read(position)
            item = data[position]
            np.testing.assert_array_equal(item["clean"].numpy(), clean, err_msg=mode)
            np.testing.assert_array_equal(item["noisy"].numpy(), noisy, err_msg=mode)
            assert int(item["index"]) == position


def test_noisy_corpora_name_their_clean_images(corpora: dict[str, str], tree: Tree) -> None:
    corpus = Corpus.open(corpora["noisy"])
    assert corpus.layout.arrays == ("noisy",)
    assert not [name for name in tree(corpora["noisy"]) if name.startswith("clean/")]
    assert list(corpus.verify()) == []
    noisy, pairs = (Corpus.open(corpora[mode]).table for mode in ("noisy", "pairs"))
    assert noisy.equals(pairs)
    with pytest.raises(UserError, match="no clean"):
        corpus.read(0)


def test_a_recipe_is_small_and_holds_no_images(corpora: dict[str, str], tree: Tree) -> None:
    files = tree(corpora["recipe"])
    assert not [name for name in files if "/" in name]
    assert sum(len(content) for name, content in files.items() if name != "report.html") < 50_000
    corpus = Corpus.open(corpora["recipe"])
    assert list(corpus.verify()) == []
    for read in (lambda: corpus.part(0), lambda: next(corpus.manifest())):
        with pytest.raises(UserError, match="materialise"):
            read()


@pytest.mark.parametrize("mode", ["pairs", "noisy"])
def test_materialised_recipes_are_the_corpus(
    corpora: dict[str, str], made: Made, tree: Tree, tmp_path: Path, mode: str
) -> None:
    asked = recorded_parameters(corpora["recipe"], output=str(tmp_path / "made"), mode=mode)
    assert require_same_recipe(corpora["recipe"], plan_corpus(asked)) == []
    published, _ = made(asked)
    assert published.digest == Corpus.open(corpora[mode]).digest
    assert tree(tmp_path / "made") == tree(corpora[mode])


def test_other_sources_are_refused(corpora: dict[str, str], tmp_path: Path, pair: Callable, save: Callable) -> None:
    moved = tmp_path / "moved"
    with pytest.raises(UserError, match="moved: no clean images found"):
        CorpusDataset(corpora["recipe"], clean=str(moved))
    shutil.copytree(corpora["clean"], moved)
    assert len(CorpusDataset(corpora["recipe"], clean=str(moved))) == 72
    with pytest.raises(UserError, match=r"its model differ from the recorded"):
        CorpusDataset(corpora["noisy"], model="awgn", clean=str(moved))
    save(moved / "2.png", pair(99)[1])
    with pytest.raises(UserError, match=r"its clean differ from the recorded.*--clean"):
        CorpusDataset(corpora["recipe"], clean=str(moved))


def test_a_corpus_that_changes_under_a_training_is_noticed(corpora: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(corpora["pairs"], tmp_path / "c")
    data = copy.copy(CorpusDataset(str(tmp_path / "c")))  # reduced and built again, as for a worker
    record = tmp_path / "c" / "corpus.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"digest": "0" * 64}))
    with pytest.raises(IntegrityError, match="changed since it was opened"):
        data[0]


@pytest.mark.parametrize("mode", MODES)
def test_spawned_workers(corpora: dict[str, str], mode: str) -> None:
    data = CorpusDataset(corpora[mode])
    loader = DataLoader(data, 8, num_workers=1, multiprocessing_context="spawn")
    reference = Corpus.open(corpora["pairs"])
    count = 0
    for batch in loader:
        for clean, noisy, index in zip(batch["clean"], batch["noisy"], batch["index"], strict=True):
            assert int(index) == count
            if count % 9 == 0:
                for image, expected in zip((clean, noisy), reference.read(count), strict=True):
                    np.testing.assert_array_equal(image.numpy(), expected)
            count += 1
    assert count == 72


def test_rejected_pairs_are_left_out_unless_asked_for(parameters: Make, made: Made, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("std_ratio: [0.97, 1.03]\nmax_rejected_share: 1.0\nmax_lag1_error: null\n")
    published, _ = made(parameters(tmp_path / "c", gate=str(tmp_path / "gate.yaml")))
    rejected = [r["sample"] for r in Corpus.open(published.url).table.to_pylist() if not r["accepted"]]
    data = CorpusDataset(published.url)
    assert len(data) == 36 - len(rejected) == 36 - published.rejected
    assert not set(rejected) & {int(data[k]["index"]) for k in range(len(data))}
    assert len(CorpusDataset(published.url, accepted_only=False)) == 36
