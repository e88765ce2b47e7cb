"""Prompt banks: kept prompts make the very corpus that the references make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from pngmodel.bundle import save_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from tasks.corpus.estimate import estimate
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.inspection import inspect, verify
from tasks.corpus.plan import CorpusParameters, evaluated_pairs, plan_corpus
from tasks.datasets.reference_pairs import open_references
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.models import prompt_bank as promptbank
from tasks.models.generators import load_generator, model_digest
from tasks.models.prompt_bank import BankParameters, build_bank, plan_bank
from tasks.stores.prompt_bank import PromptBank, decode_entry

Tree = Callable[[Any], dict[str, bytes]]
Make = Callable[..., CorpusParameters]
SMALL = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A network of milliseconds with untrained weights."""
    torch.manual_seed(0)
    save_bundle(NoiseModel(PRESETS["tiny"].model_copy(update=SMALL)), tmp_path / "bundle", training={}, card="")
    return str(tmp_path / "bundle")


def bank_of(patches: str, output: Path, **changes: Any) -> BankParameters:
    fields = {"references": patches, "output": str(output), "model": "spectrum_matched", "shard": 10}
    return BankParameters(**(fields | changes))


def test_what_a_bank_holds(patches: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = build_bank(bank_of(patches, tmp_path / "bank"), lambda done, total: steps.append((done, total)))
    assert steps == [(0, 36), (10, 36), (20, 36), (30, 36), (36, 36)]
    assert (result["entries"], result["shards"]) == (36, {"made": 4, "kept": 0})
    parts = sorted((tmp_path / "bank" / "parts").iterdir())
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    source = open_references(patches)
    assert [r["id"] for r in rows] == [r.id for r in source.references]
    assert {r["model"] for r in rows} == {model_digest("spectrum_matched")} == {result["model"]}
    assert {(r["dataset"], r["licence"]) for r in rows} == {("tiny_pairs", "CC0")}
    # Any reader of safetensors finds what the generator extracts.
    generator = load_generator("spectrum_matched", "cpu", model_digest("spectrum_matched"))
    content = (tmp_path / "bank" / "prompts" / "00001.bin").read_bytes()[rows[13]["start"] : rows[13]["stop"]]
    stored = load(content)
    (expected,) = generator.prompts(*source.read(13))
    for name, value in expected.items():
        assert torch.equal(stored[f"prompts/{name}"], value)
    assert stored["moments/values"].shape == (3, 17, 2)
    bank = PromptBank(str(tmp_path / "bank"))
    entry = bank.read(13)
    assert {n: v.tolist() for n, v in entry.prompts.items()} == {n: v.tolist() for n, v in expected.items()}
    assert hashlib.sha256(content).hexdigest() == rows[13]["sha256"]
    with pytest.raises(UserError, match="no entry 36; it holds 36"):
        bank.read(36)


@pytest.mark.parametrize("reference_policy", ["uniform", "own"])
def test_the_corpus_of_a_bank_is_that_of_the_references(
    reference_policy: str,
    bundle: str,
    patches: str,
    parameters: Make,
    tmp_path: Path,
    rows_of: Callable,
    images_of: Callable,
) -> None:
    common = {
        "model": bundle,
        "clean": patches,
        "scale": 2,
        "seed": 5,
        "shard": 50,
        "reference_policy": reference_policy,
    }
    build_bank(bank_of(patches, tmp_path / "bank", model=bundle))
    make_corpus_shards(direct := plan_corpus(parameters(tmp_path / "direct", **common)))
    plan = plan_corpus(parameters(tmp_path / "banked", **common, references=str(tmp_path / "bank")))
    make_corpus_shards(plan)
    for found, wanted in zip(images_of(plan), images_of(direct), strict=True):
        np.testing.assert_array_equal(found, wanted)
    ours, theirs = rows_of(plan), rows_of(direct)
    assert {r.pop("prompt_source") for r in ours} == {"bank"}
    assert {r.pop("prompt_source") for r in theirs} == {"reference"}
    assert ours == theirs  # expected_std, cameras and licences among them
    assert plan.licence == direct.licence


def test_the_references_are_not_needed(
    patches: str,
    folders: tuple[Path, Path],
    parameters: Make,
    tmp_path: Path,
    images_of: Callable,
    made: Callable,
) -> None:
    build_bank(bank_of(patches, tmp_path / "bank", model="heteroscedastic", split="train"))
    make_corpus_shards(direct := plan_corpus(parameters(tmp_path / "direct", split="train")))
    noisy = images_of(direct)[1]
    Path(patches).rename(tmp_path / "moved")
    plan = plan_corpus(parameters(tmp_path / "banked", references=str(tmp_path / "bank")))
    assert estimate(plan)["references"] == 18
    assert evaluated_pairs(plan) == {"references": "shipped", "split": None}
    made(plan.parameters)
    np.testing.assert_array_equal(images_of(plan)[1], noisy)
    assert verify(plan.parameters.output)["verified"] is True
    assert "shipped with pngnoise (a prompt bank holds no real pairs)" in (tmp_path / "banked/README.md").read_text()


def test_selection(patches: str, tmp_path: Path) -> None:
    def ids(**changes: Any) -> list[str]:
        plan = plan_bank(bank_of(patches, tmp_path / "bank", **changes))
        return [open_references(patches).references[k].id for k in plan.picks]

    whole = ids()
    assert ids(camera="GP", split="train") == [i for i in whole if i.startswith("street_100_1")]
    assert ids(limit=3) == [whole[0], whole[18], whole[35]]
    with pytest.raises(UserError, match=r"no reference of camera 'S6'; available cameras: \['GP', 'None'\]"):
        ids(camera="S6")
    with pytest.raises(UserError, match="no references of split 'other'"):
        ids(split="other")
    assert not (tmp_path / "bank").exists()


def test_a_split_of_a_whole_bank_is_that_of_the_store(patches: str, parameters: Make, tmp_path: Path) -> None:
    build_bank(bank_of(patches, tmp_path / "bank", model="heteroscedastic"))
    banked = plan_corpus(parameters(tmp_path / "c", references=str(tmp_path / "bank"), split="train"))
    direct = plan_corpus(parameters(tmp_path / "c", split="train"))
    assert [banked.sample(k) for k in range(36)] == [direct.sample(k) for k in range(36)]


def test_another_model_is_refused(patches: str, bundle: str, parameters: Make, tmp_path: Path) -> None:
    build_bank(bank_of(patches, tmp_path / "bank", model=bundle, limit=4))
    with pytest.raises(
        UserError, match=r"bank: this prompt bank was made by the model with digest .*'heterosc.*--model"
    ):
        plan_corpus(parameters(tmp_path / "c", references=str(tmp_path / "bank")))
    assert not (tmp_path / "c").exists()


def test_where_images_are_needed_a_bank_is_refused(patches: str, tmp_path: Path) -> None:
    bank = str(tmp_path / "bank")
    build_bank(bank_of(patches, tmp_path / "bank", limit=4))
    for attempt in (
        lambda: evaluate_noise(EvaluateParameters(model="awgn", references=bank)),
        lambda: build_bank(bank_of(bank, tmp_path / "again")),
    ):
        with pytest.raises(UserError, match="is a prompt bank, which has no images"):
            attempt()


def test_an_interrupted_build_goes_on_and_ends_with_the_same_bytes(
    patches: str, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_bank(bank_of(patches, tmp_path / "whole"))
    extract, calls = promptbank.extracted, []

    def dies_late(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return extract(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(promptbank, "extracted", dies_late)
        with pytest.raises(KeyboardInterrupt):
            build_bank(bank_of(patches, tmp_path / "cut"))
    with pytest.raises(UserError, match="this prompt bank is unfinished"):
        inspect(str(tmp_path / "cut"))
    with pytest.raises(UserError, match="is not a source of references"):
        open_references(str(tmp_path / "cut"))
    assert build_bank(bank_of(patches, tmp_path / "cut"))["shards"] == {"made": 2, "kept": 2}
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    assert build_bank(bank_of(patches, tmp_path / "cut"))["shards"] == {"made": 0, "kept": 4}
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_workers_make_the_same_bytes(patches: str, tmp_path: Path, tree: Tree) -> None:
    build_bank(bank_of(patches, tmp_path / "one"))
    build_bank(bank_of(patches, tmp_path / "two", cluster={"kind": "local", "workers": 2}))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("offset", [3, 60, -5])
def test_damage_is_noticed_and_mended(offset: int, patches: str, tmp_path: Path, tree: Tree) -> None:
    url = str(tmp_path / "bank")
    build_bank(bank_of(patches, tmp_path / "bank"))
    before = tree(url)
    path = tmp_path / "bank" / "prompts" / "00003.bin"
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    bank = PromptBank(url)
    bank.read(0)
    with pytest.raises(IntegrityError, match=r"00003\.bin: is damaged"):
        bank.read(30 if offset > 0 else 35)
    with pytest.raises(IntegrityError, match=str(path)):
        verify(url)
    assert build_bank(bank_of(patches, tmp_path / "bank"))["shards"] == {"made": 1, "kept": 3}
    assert tree(url) == before
    path.unlink()
    with pytest.raises(IntegrityError, match=r"00003\.bin: is missing"):
        PromptBank(url).read(35)


def test_any_damaged_byte_of_an_entry_is_noticed(patches: str, tmp_path: Path) -> None:
    build_bank(bank_of(patches, tmp_path / "bank", model="awgn", limit=2))
    path = tmp_path / "bank" / "prompts" / "00000.bin"
    content, bank = path.read_bytes(), PromptBank(str(tmp_path / "bank"))
    start = bank.rows[1]["start"]
    for at in range(start, len(content), 5):
        damaged = bytearray(content)
        damaged[at] ^= 2
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="entry 1 has another sha256"):
            bank.read(1)
    for length in (0, 4, 8, 100, len(content) - start - 1):
        with pytest.raises(ValueError, match="not a safetensors file"):
            decode_entry(content[start : start + length])


def test_a_record_of_another_kind_is_refused(patches: str, tmp_path: Path) -> None:
    url = str(tmp_path / "bank")
    build_bank(bank_of(patches, tmp_path / "bank", limit=2))
    location = tmp_path / "bank" / "bank.json"
    record = json.loads(location.read_text())
    for change, words in (
        ({"format_version": 3}, "format_version is 3, this release reads 2; update pngnoise"),
        ({"surprise": 1}, "key 'surprise'"),
        ({"entries": 3}, "its parts hold 2 entries, bank.json records 3"),
    ):
        location.write_text(json.dumps(record | change))
        with pytest.raises(UserError, match=words):
            open_references(url)
    location.write_text(json.dumps(record | {"licence": "mine"}))
    with pytest.raises(IntegrityError, match="does not match its own digest"):
        verify(url)


def test_other_contents_of_the_output_are_kept(patches: str, catalogue: str, tmp_path: Path) -> None:
    build_bank(bank_of(patches, tmp_path / "bank", limit=2))
    with pytest.raises(
        UserError, match=r"holds a different prompt bank; different settings: .*limit \(2 exists, 3 requested\)"
    ):
        build_bank(bank_of(patches, tmp_path / "bank", limit=3))
    with pytest.raises(UserError, match="is not empty"):
        build_bank(bank_of(patches, Path(catalogue)))
    with pytest.raises(UserError, match="holds a patch store, not a prompt bank"):
        build_bank(bank_of(patches, Path(patches)))
