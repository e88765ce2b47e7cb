"""Versions that no evaluation knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pngmodel.bundle import write_bundle
from tasks.models import catch_up as catchup
from tasks.models import events
from tasks.models.catch_up import announce_unevaluated, unevaluated
from tasks.models.registry import add_version, parse_model_name


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Three denoisers in a registry."""
    for number in range(3):
        module = nn.Linear(1, 1)
        nn.init.constant_(module.weight, number)
        folder = tmp_path / f"bundle-{number}"
        write_bundle(module, folder, kind="pngnoise-denoiser", model={}, training={}, card="# card\n")
        add_version(str(folder), str(tmp_path / "models/net"))
    return str(tmp_path / "models/net")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Events instead of a server that takes them."""
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **content: heard.append(content))
    return heard


def evaluated(model: str, stored_with: int, *about: int) -> None:
    registered = parse_model_name(model)
    denoisers = [{"digest": registered.version(number).digest, "metrics": {}} for number in about]
    registered.keep_evaluation(stored_with, json.dumps({"denoisers": denoisers}).encode())


def test_versions_without_an_evaluation_are_found(model: str) -> None:
    assert [v.version for v in unevaluated(parse_model_name(model))] == [1, 2, 3]
    evaluated(model, 2, 2)
    assert [v.version for v in unevaluated(parse_model_name(model))] == [1, 3]


def test_a_record_that_is_stored_with_another_version_counts(model: str) -> None:
    """Of several that are compared one is the candidate, whose promotion stores the record."""
    evaluated(model, 2, 1, 2)
    assert [v.version for v in unevaluated(parse_model_name(model))] == [3]


def test_denoisers_are_told_together_and_nothing_when_all_are_known(model: str, sent: list[dict[str, Any]]) -> None:
    evaluated(model, 1, 1)
    assert announce_unevaluated(model) == [f"{model}@2", f"{model}@3"]
    (event,) = sent
    assert event["event"] == "png.model.trained"
    assert event["resource"]["png.kind"] == "denoiser"
    assert event["payload"]["denoisers"] == [f"{model}@2", f"{model}@3"]
    evaluated(model, 2, 2, 3)
    assert catchup.announce_unevaluated(model) == []
    assert len(sent) == 1


def test_the_series_of_a_corpus_is_the_folder_that_it_lies_in(sent: list[dict[str, Any]]) -> None:
    for url in ("s3://bucket/corpora/nightly/2026-11-24", "s3://bucket/corpora/nightly/2026-11-24/", "nightly/a", "a"):
        events.announce_corpus(url, "0" * 64)
    assert [event["resource"]["png.series"] for event in sent] == ["nightly", "nightly", "nightly", ""]


def test_an_event_that_cannot_be_sent_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**content: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(events, "emit_event", broken)
    events.announce_corpus("a/b", "0" * 64)
