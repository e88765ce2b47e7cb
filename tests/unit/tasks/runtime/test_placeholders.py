"""Words in braces of a flow's parameters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flows.train_denoiser import TrainDenoiserParameters
from tasks.corpus.plan import CorpusParameters
from tasks.evaluation.noise import EvaluateParameters
from tasks.runtime.parameters import load_cluster
from tasks.runtime.placeholders import PLACEHOLDERS, resolve_placeholders

NIGHT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE", "PATCHES", "WORK", "DEVICE"):
        monkeypatch.delenv(f"PNGNOISE_{name}", raising=False)
    monkeypatch.setenv("PNGNOISE_STORAGE", "s3://bucket/")


def test_all_words_are_replaced_also_in_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNGNOISE_WORK", "/fast")
    monkeypatch.setenv("PNGNOISE_DEVICE", "cuda:1")
    asked = TrainDenoiserParameters(
        output="{work}/{date}",
        real=["{patches}", "other"],
        arms=[{"name": "png", "synthetic": "{storage}/corpora/latest"}],
        device="{device}",
    )
    found = resolve_placeholders(asked, NIGHT)
    assert (found.output, found.device) == ("/fast/2026-11-24", "cuda:1")
    assert found.real == ["s3://bucket/data/samples/patches", "other"]
    assert found.arms[0].synthetic == "s3://bucket/corpora/latest"
    assert asked.output == "{work}/{date}"


def test_the_date_is_that_of_utc() -> None:
    late = datetime(2026, 11, 24, 1, 0, tzinfo=timezone(timedelta(hours=5)))
    assert resolve_placeholders(EvaluateParameters(output="{date}"), late).output == "2026-11-23"


def test_a_dated_corpus_has_new_noise_unless_its_seed_is_given() -> None:
    assert resolve_placeholders(CorpusParameters(output="a/{date}"), NIGHT).seed == 20261124
    assert resolve_placeholders(CorpusParameters(output="a/{date}", seed=0), NIGHT).seed == 0
    assert resolve_placeholders(CorpusParameters(output="a/b"), NIGHT).seed == 0


def test_parameters_without_words_are_the_same_object() -> None:
    asked = CorpusParameters(output="a{1}b")
    assert resolve_placeholders(asked, NIGHT) is asked


def test_other_words_in_braces_stay() -> None:
    """Dask's clusters are named with {uuid}, and folders may be called anything."""
    assert resolve_placeholders(CorpusParameters(output="{storage}/{raw}"), NIGHT).output == "s3://bucket/{raw}"
    for file in Path("configs/clusters").glob("*.yaml"):
        asked = CorpusParameters(output="a", cluster=load_cluster(str(file)))
        assert resolve_placeholders(asked, NIGHT) is asked


def test_every_documented_word_means_something() -> None:
    for name in PLACEHOLDERS:
        assert "{" not in resolve_placeholders(EvaluateParameters(model=f"{{{name}}}"), NIGHT).model
