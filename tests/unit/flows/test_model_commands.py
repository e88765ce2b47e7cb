"""Commands about versions of models and about denoised images, as a user runs them: flows, exit codes, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from pngmodel.bundle import write_bundle
from tasks.datasets.ingest import ingest
from tasks.stores.patch_store import PatchStore
from tests.commands import answer, run

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_model_from_its_bundle_to_champion_and_back(tmp_path: Path) -> None:
    location, gate, record = f"{tmp_path}/models/small", tmp_path / "gate.yaml", tmp_path / "record.json"
    gate.write_text("limits: {model.kld: {max: 0.1}}\n")
    for number in (1, 2):
        module = nn.Linear(1, 1)
        nn.init.constant_(module.weight, number)
        nn.init.zeros_(module.bias)
        write_bundle(module, tmp_path / "bundle", kind="pngnoise-model", model={}, training={}, card="# card\n")
        added = answer("registry", "add", tmp_path / "bundle", location, "--note", f"run {number}")
        assert (added["name"], added["added"], added["note"]) == (f"small@{number}", True, f"run {number}")
        for kld in (0.2, 0.05):
            record.write_text(json.dumps({"model": {"digest": added["digest"]}, "metrics": {"model": {"kld": kld}}}))
            result = run("registry", "promote", f"{location}@{number}", "--record", record, "--rules", gate)
            assert result.exit_code == (2 if kld == 0.2 else 0), result
            if kld == 0.2:
                words = " ".join(result.stderr.split())
                assert "model.kld is 0.2, must be at most 0.1" in words
                assert "Traceback" not in words
    assert answer("registry", "list", tmp_path / "models")["models"][0]["champion"]["version"] == 2
    assert answer("registry", "show", location)["champion"] == 2
    assert len(answer("registry", "show", f"{location}@2")["evaluations"]) == 2
    back = answer("registry", "rollback", location, "--reason", "colour cast")
    assert (back["version"], back["previous"], back["reason"]) == (1, 2, "colour cast")
    fetched = answer("registry", "fetch", f"{location}@champion", "--output", tmp_path / "fetched")
    assert answer("verify", tmp_path / "fetched")["digest"] == fetched["digest"] == back["digest"]
    assert run("registry", "list", tmp_path / "models").exit_code == 0
    assert run("registry", "show", location).exit_code == 0
    missing = run("registry", "fetch", f"{location}@7", "--output", tmp_path / "other")
    assert missing.exit_code == 2
    assert "has no version 7" in missing.stderr


def test_estimated_clean_images_and_parts(patches: str, tmp_path: Path) -> None:
    made = answer("estimate-clean", patches, "--output", tmp_path / "whole")
    for part in ("1/2", "2/2"):
        answer("estimate-clean", patches, "--output", tmp_path / "parts", "--parts", part)
    assert answer("finalise", tmp_path / "parts", "--cluster", "inline")["digest"] == made["digest"]
    assert len(PatchStore.open(str(tmp_path / "parts"))) == 36
    assert answer("inspect", tmp_path / "parts")["recipe"]["estimated_clean"]["denoiser"] == "nlm"


def test_a_submission_of_another_dataset_is_refused(catalogue: str, tmp_path: Path) -> None:
    result = run("submit", "sidd", catalogue, "--denoiser", "nlm", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "contains tiny_pairs" in result.stderr
    assert run("submit", "ntire", catalogue, "--denoiser", "nlm", "--output", tmp_path / "out").exit_code == 2


def test_cameras_are_told(tmp_path: Path, pair: Callable, save: Callable) -> None:
    rules = (
        "dataset: two\nlicence: CC0\nnoisy: noisy/(?P<pair>(?P<scene>[a-z])_(?P<camera>[A-Z])_(?P<iso>\\d+))\\.png\n"
    )
    (tmp_path / "rules.yaml").write_text(rules + "clean: clean/(?P<pair>.+)\\.png\n")
    for number, name in enumerate(f"{s}_{c}_100" for s in "abcd" for c in "AB"):
        for side, image in zip(("noisy", "clean"), pair(number, 64, 64, strength=1 + 2 * ("B" in name)), strict=True):
            save(tmp_path / "pairs" / side / f"{name}.png", image)
    ingest(str(tmp_path / "pairs"), str(tmp_path / "rules.yaml"), str(tmp_path / "catalogue"))
    options = ["--side", 64, "--least", 2, "--steps", 3, "--seeds", 1, "--report", tmp_path / "page.html"]
    record = answer("evaluate", "metadata", "--references", tmp_path / "catalogue", *options)
    assert record["tasks"]["camera"]["classes"] == ["A", "B"]
    assert "confusion matrix" in (tmp_path / "page.html").read_text()
    result = run("evaluate", "metadata", "--references", tmp_path / "catalogue", *options)
    assert result.exit_code == 0
    assert "camera+iso: 2 classes" in result.stdout
