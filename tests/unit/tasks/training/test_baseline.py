"""Baselines trained on patch stores, loaded as generators, and measured beside others in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pngmodel.baselines.trained import TRAINED
from pngmodel.bundle import CARD, bundle_config
from pngmodel.errors import UserError
from tasks.evaluation.c2st import C2stParameters, evaluate_c2st
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.models.generators import load_generator, model_digest
from tasks.reports.tables import c2st_table, report_page, simplified_note
from tasks.runtime.devices import Devices
from tasks.training.baseline import BaselineTraining
from tasks.training.pair_samples import LabelledSamples, camera_settings
from tasks.training.pair_sources import RealPairs, setting_name
from tasks.training.stages import load_training, publish_bundle, train_stages, write_card
from tests.commands import run

CONFIGS = Path(__file__).parents[4] / "configs" / "models"
SMALLEST: dict[str, dict[str, Any]] = {
    "c2n": {"width": 4, "extractor": 1, "critic_width": 4, "critic_blocks": 1},
    "flow_srgb": {"steps": 1, "hidden": 4, "features": 4},
    "naflow": {"levels": 1, "features": 8, "hidden": 4},
    "neca_w": {"gain_width": 4, "level_width": 4, "correlator_width": 4, "correlator_scales": 1, "critic_width": 4},
}
Configure = Callable[..., Path]


@pytest.fixture
def configuration(patches: str, tmp_path: Path) -> Configure:
    """A training of two steps of a baseline; keywords change top-level keys."""

    def write(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        content = {
            "baseline": name,
            "settings": SMALLEST.get(name, {}),
            "data": {"stores": [patches]},
            "train": {"steps": 2, "batch": 4, "crop": 16, "checkpoint_every": 1, "log_every": 1, "optimiser": "adam"},
        }
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


def made(path: Path, output: Path) -> str:
    """The bundle of a training."""
    config = load_training(str(path))
    outcomes = train_stages(config, output, Devices(), str(path))
    assert [outcome.step for outcome in outcomes.values()] == [2]
    return publish_bundle(config.create_run(output, source=str(path)), "a command")["bundle"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_ends_in_a_bundle_that_works(
    name: str, configuration: Configure, tmp_path: Path, pair: Callable[..., Any]
) -> None:
    bundle = made(configuration(name), tmp_path / "run")
    config = bundle_config(bundle)
    assert (config["format"], config["model"]["baseline"]) == ("pngnoise-baseline", name)
    assert config["training"]["steps"] == {name: 2}
    assert config["training"]["precision"] == "float32"
    card = (Path(bundle) / CARD).read_text()
    assert all(line in card for line in TRAINED[name].simplifications)
    assert "No metrics" in card
    generator = load_generator(bundle, "cpu", model_digest(bundle))
    assert generator.name == name
    noisy, clean = pair(1, 32, 32)
    drawn = generator.generate(clean, reference=(noisy, clean), seed=1)
    assert (np.asarray(drawn) != clean).mean() > 0.2


def test_it_resumes_to_the_same_weights(configuration: Configure, tmp_path: Path) -> None:
    path = configuration("c2n")
    config = load_training(str(path))
    while not (found := train_stages(config, tmp_path / "parts", Devices(), str(path), 1e-9))["c2n"].finished:
        assert found["c2n"].step == 1
    parts = publish_bundle(config.create_run(tmp_path / "parts"), "x")["bundle"]
    weights = [(Path(b) / "model.safetensors").read_bytes() for b in (parts, made(path, tmp_path / "whole"))]
    assert weights[0] == weights[1]
    with pytest.raises(UserError, match="another configuration or data"):
        made(configuration("c2n", settings=SMALLEST["c2n"] | {"width": 8}), tmp_path / "parts")


def test_what_does_not_decide_the_weights_is_not_in_the_identity(configuration: Configure, tmp_path: Path) -> None:
    def identity(**changes: Any) -> str:
        train = {"steps": 2, "batch": 4, "crop": 16} | changes
        return load_training(str(configuration("flow_srgb", train=train))).create_run(tmp_path / "run").identity

    assert identity() == identity(log_every=7, compile=True)
    assert identity() != identity(steps=3)


def test_naflow_learns_the_cameras_and_iso_values_of_the_data(
    configuration: Configure, patches: str, tmp_path: Path
) -> None:
    source = RealPairs(patches, "train")
    assert camera_settings([source]) == ["GP_00100"]  # the other street is for validation, walls have no camera
    assert setting_name("GP", None) is None
    training = load_training(str(configuration("naflow"))).create_run(tmp_path / "run")
    assert isinstance(training, BaselineTraining)
    assert training.settings.model_dump()["settings"] == ("GP_00100",)
    samples = LabelledSamples([source], ["S6_00800", "GP_00100"], crop=16, flips=True, seed=0)
    batch = samples.__getitems__(range(32))
    assert set(batch.setting.tolist()) == {-1, 1}
    names = [samples.describe([k]) for k in range(32)]
    assert [("street" in name) == (label == 1) for name, label in zip(names, batch.setting.tolist(), strict=True)]
    listed = load_training(str(configuration("naflow", settings=SMALLEST["naflow"] | {"settings": ["a", "b"]})))
    assert listed.resolved("x")["config"]["settings"]["settings"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baseline": "nafow"}, r"'baseline' is 'nafow'; choose one of c2n, flow_srgb"),
        ({"settings": {"stepz": 3}}, r"\(settings\).*'stepz'.*allowed keys: features, hidden, steps"),
        ({"settings": {"hidden": 1}}, r"\(settings\).*'hidden' has value 1"),
        ({"data": {"stores": []}}, r"'data\.stores' has value \[\]"),
        ({"train": {"steps": 2, "batch": 4, "crop": 15}}, r"'train\.crop' has value 15"),
        (
            {"train": {"steps": 2, "batch": 4, "crop": 64}},
            r"crop: 64 pixels is larger than the patches; use at most 32",
        ),
        ({"pdit": {}}, r"unknown key 'pdit'"),
    ],
)
def test_errors_name_key_and_value(
    configuration: Configure, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = configuration("flow_srgb", **change)
    with pytest.raises(UserError, match=words):
        load_training(str(path)).create_run(tmp_path / "run", source=str(path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TRAINED)
def test_the_shipped_configurations_are_read(name: str, patches: str) -> None:
    found = run("train", CONFIGS / f"{name}.yaml", "--stores", patches, "--dry-run")
    assert found.exit_code == 0, found.output
    assert f'"baseline": "{name}"' in found.stdout
    assert '"simplifications"' in found.stdout


@pytest.fixture
def bundles(configuration: Configure, tmp_path: Path) -> list[str]:
    """A flow in two trainings, and C2N."""
    return [
        made(configuration("flow_srgb"), tmp_path / "first"),
        made(configuration("flow_srgb", settings=SMALLEST["flow_srgb"] | {"steps": 2}), tmp_path / "second"),
        made(configuration("c2n"), tmp_path / "third"),
    ]


def test_several_models_stand_in_one_table(bundles: list[str], patches: str, tmp_path: Path) -> None:
    parameters = EvaluateParameters(model="awgn", compare=bundles, references=patches, limit=2, baselines=False)
    evaluation = evaluate_noise(parameters)
    record = evaluation.record
    assert [*record["metrics"]] == ["model", "flow_srgb", "second", "c2n", "floor"]
    assert record["compare"] == {
        row: model_digest(bundle) for row, bundle in zip(("flow_srgb", "second", "c2n"), bundles, strict=True)
    }
    assert set(record["simplifications"]) == {"flow_srgb", "second", "c2n"}
    assert "Flow-sRGB (ours): conditioned on" in simplified_note(record)
    page = report_page(evaluation, title="t", lead="l")
    assert "Differences between re-implementations and their papers" in page
    assert "Flow-sRGB (ours): conditioned on" in page
    with_baselines = evaluate_noise(
        EvaluateParameters(model=bundles[0], compare=["awgn"], references=patches, limit=1, baselines=True)
    ).record
    assert [*with_baselines["metrics"]][:3] == ["model", "awgn", "heteroscedastic"]
    assert set(with_baselines["simplifications"]) == {"model"}
    with pytest.raises(UserError, match=r"compare: .*first/bundle' is named twice"):
        evaluate_noise(parameters.model_copy(update={"model": bundles[0]}))
    config = bundle_config(bundles[0])
    write_card(Path(bundles[0]), [evaluation])
    assert "| C2N (ours) |" in (Path(bundles[0]) / CARD).read_text()
    assert bundle_config(bundles[0]) == config


def test_settings_are_cameras_with_iso(patches: str) -> None:
    evaluation = evaluate_noise(EvaluateParameters(model="awgn", references=patches, baselines=False))
    record = evaluation.record
    assert record["settings_pairs"] == {
        "GP ISO 100": 9,
        "GP ISO 800": 9,
        "unknown camera ISO 100": 18,
    }
    both = [record["settings"][f"GP ISO {iso}"]["model"]["lag1_error"] for iso in (100, 800)]
    assert record["cameras"]["GP"]["model"]["lag1_error"] == pytest.approx(sum(both) / 2)
    assert "GP ISO 800, noise-A" in report_page(evaluation, title="t", lead="l")


def test_the_classifier_looks_at_them_too(bundles: list[str], catalogue: str) -> None:
    record = evaluate_c2st(
        C2stParameters(
            model=bundles[0], compare=bundles[2:], references=catalogue, steps=2, batch=4, seeds=1, hold_out="image",
            baselines=False,
        )
    )  # fmt: skip
    assert [*record["metrics"]] == ["model", "c2n", "floor"]
    assert "| C2N (ours) |" in c2st_table(record)
    assert "Differences between re-implementations and their papers" in c2st_table(record)


@pytest.mark.usefixtures("prefect_server")
def test_the_commands(configuration: Configure, patches: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    trained = run("train", configuration("flow_srgb"), "--output", output, "--json")
    assert trained.exit_code == 0, trained
    assert '"flow_srgb_steps": 2' in trained.stdout
    assert "Metrics on the validation split" in (output / "bundle" / CARD).read_text()
    arguments = ["--model", "awgn", "--compare", output / "bundle", "--references", patches, "--limit", 1]
    found = run("evaluate", "noise", *arguments, "--no-baselines")
    assert found.exit_code == 0, found
    assert "flow srgb" in found.stdout
    assert "Flow-sRGB (ours) differs from its paper: conditioned on" in found.stdout
