"""From pairs to a table: denoisers trained by arm and seed, measured, compared, and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from pngmodel.bundle import bundle_config
from pngmodel.denoisers import Denoiser, DenoiserConfig
from pngmodel.errors import UserError
from pngmodel.training.denoising import DenoiserSettings
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import ingest
from tasks.denoising.evaluation import EvaluateDenoiserParameters, measure_all, measurements, record_of
from tasks.denoising.measurement import CEILING, NOISY, TestSet, candidates
from tasks.denoising.report import fidelity_markdown, write_denoiser_report
from tasks.denoising.training import Arm, DenoiserTask, DenoiserTrainingConfig, planned_arms, train_denoisers, train_one
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.devices import Devices
from tasks.stores.patch_store import PatchStore

CONFIG = DenoiserTrainingConfig(
    denoiser=DenoiserConfig(name="dncnn", settings={"depth": 3, "width": 4}),
    train=DenoiserSettings(
        steps=3, batch=2, crop=16, optimiser="adam", learning_rate=1e-2, gradient_clip=None, ema=0.0, checkpoint_every=2
    ),
)


def task(patches: str, folder: Path, arm: Arm, seed: int = 0, config: DenoiserTrainingConfig = CONFIG) -> DenoiserTask:
    location = str(folder / arm.name / f"seed-{seed}")
    return DenoiserTask(config, "config.yaml", (patches,), "train", arm, seed, location, Devices(), None)


@pytest.fixture
def trained(patches: str, tmp_path: Path) -> Path:
    """Two seeds of the control and of an arm."""
    folder = tmp_path / "denoisers"
    arms = planned_arms([Arm(name="made", synthetic="awgn")], control=True)
    tasks = [task(patches, folder, arm, seed) for seed in (0, 1) for arm in arms]
    results = train_denoisers(tasks, ClusterConfig(kind="inline"))
    assert [(r["arm"], r["seed"], r["finished"]) for r in results] == [
        ("real", 0, True),
        ("made", 0, True),
        ("real", 1, True),
        ("made", 1, True),
    ]
    return folder


def parameters(patches: str, trained: Path, output: Path, **changes) -> EvaluateDenoiserParameters:
    tests = [TestSet(name="own", references=patches, split="validation", limit=5)]
    fields = {"denoisers": [str(trained), "nlm"], "tests": tests, "output": str(output)}
    return EvaluateDenoiserParameters(**(fields | changes))


def measured(given: EvaluateDenoiserParameters, progress: Callable[[int, int], None] = lambda done, total: None):
    tasks = measurements(given)
    return measure_all(tasks, given.output, given.cluster, progress)


def test_the_control_is_trained_with_the_others_and_a_rerun_trains_nothing(
    trained: Path, patches: str, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    before = tree(trained)
    stamps = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    result = train_one(task(patches, trained, Arm(name="made", synthetic="awgn")))
    assert result["finished"]
    assert tree(trained) == before
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()} == stamps
    facts = bundle_config(trained / "made/seed-1/bundle")["training"]
    assert (facts["seed"], facts["steps"], facts["arm"]["synthetic"]) == (1, 3, "awgn")
    assert [d["kind"] for d in facts["data"]] == ["synthetic"]
    assert bundle_config(trained / "real/seed-0/bundle")["training"]["data"][0]["licence"] == "CC0"


def test_networks_of_one_seed_start_alike_and_of_two_do_not(patches: str, tmp_path: Path) -> None:
    settings = CONFIG.train.model_copy(update={"learning_rate": 1e-30, "steps": 1})
    still = CONFIG.model_copy(update={"train": settings})
    folders = [
        train_one(task(patches, tmp_path, arm, seed, still))["bundle"]
        for arm, seed in (
            (Arm(name="a", share=0.0), 0),
            (Arm(name="b", synthetic="awgn"), 0),
            (Arm(name="c", share=0), 1),
        )
    ]
    first, second, third = (Denoiser.from_pretrained(f).network.noise[0].weight for f in folders)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_other_data_or_steps_are_another_training(patches: str, trained: Path) -> None:
    longer = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"steps": 4})})
    with pytest.raises(UserError, match="has checkpoints of another configuration or data"):
        train_one(task(patches, trained, Arm(name="made", synthetic="awgn"), config=longer))
    with pytest.raises(UserError, match="another configuration or data"):
        train_one(task(patches, trained, Arm(name="made", synthetic="heteroscedastic")))


def test_the_record_by_hand(trained: Path, patches: str, tmp_path: Path) -> None:
    given = parameters(patches, trained, tmp_path / "evaluation")
    record = record_of(given, measured(given))
    store = PatchStore.open(patches)
    rows = [k for k, split in enumerate(store.table.column("split").to_pylist()) if split == "validation"]
    rows = [rows[int(i)] for i in np.linspace(0, len(rows) - 1, 5).round()]
    found: dict[str, list[list[float]]] = {"real": [], "made": []}
    for arm, by_seed in found.items():
        for seed in (0, 1):
            denoiser = Denoiser.from_pretrained(trained / arm / f"seed-{seed}" / "bundle")
            values = []
            for row in rows:
                clean, noisy = store.read(row)
                values.append(peak_signal_noise_ratio(clean, denoiser.denoise(noisy), data_range=255))
            by_seed.append(values)
    metrics = record["tests"]["own"]["metrics"]
    for arm, by_seed in found.items():
        means = [fmean(values) for values in by_seed]
        assert metrics[arm]["psnr_by_seed"] == pytest.approx(means, abs=1e-9)
        assert metrics[arm]["psnr"] == pytest.approx(fmean(means))
        assert metrics[arm]["psnr_spread"] == pytest.approx(stdev(means))
    noisy = [peak_signal_noise_ratio(*store.read(row), data_range=255) for row in rows]
    assert metrics[NOISY]["psnr"] == pytest.approx(fmean(noisy), abs=1e-9)
    assert "psnr_spread" not in metrics["nlm"]
    difference = record["tests"]["own"]["differences"]["made"]["psnr"]
    assert difference["mean"] == pytest.approx(fmean(np.subtract(found["made"], found["real"]).ravel()))
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert set(record["tests"]["own"]["differences"]) == {"made", "nlm"}
    assert [d["arm"] for d in record["denoisers"]] == ["made", "made", "nlm", "real", "real"]
    assert "| made | 2 |" in fidelity_markdown(record)


def test_a_second_evaluation_measures_nothing_and_says_the_same(trained: Path, patches: str, tmp_path: Path) -> None:
    given = parameters(patches, trained, tmp_path / "evaluation")
    first, second = [], []
    record = record_of(given, measured(given, lambda *n: first.append(n)))
    again = record_of(given, measured(given, lambda *n: second.append(n)))
    assert (first[0], first[-1], second) == ((0, 6), (6, 6), [(6, 6)])
    assert json.dumps(again) == json.dumps(record)
    elsewhere = parameters(patches, trained, tmp_path / "elsewhere")
    assert json.dumps(record_of(elsewhere, measured(elsewhere))) == json.dumps(record)
    third: list[tuple[int, int]] = []
    measured(parameters(patches, trained, tmp_path / "evaluation", protocol="float"), lambda *n: third.append(n))
    assert third[0] == (0, 6)


def test_the_page_shows_tables_and_pictures(trained: Path, patches: str, tmp_path: Path) -> None:
    given = parameters(patches, trained, tmp_path / "evaluation")
    found = measured(given)
    record = record_of(given, found)
    location = Path(write_denoiser_report(given, record, found))
    page = location.read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "real pairs (control)" in page
    stamp = location.stat().st_mtime_ns
    write_denoiser_report(given, record, found)
    assert location.stat().st_mtime_ns == stamp


def test_equal_images_are_no_infinite_mean(
    trained: Path, folders: tuple[Path, Path], tmp_path: Path, save: Callable[..., None]
) -> None:
    """Black patches, where noisy and clean are the same."""
    root, rules = folders
    for side in ("noisy", "clean"):
        pixels = np.asarray(Image.open(root / side / "wall_100_2.png")).copy()
        pixels[:48] = 0
        save(root / side / "wall_100_2.png", pixels)
    ingest(str(root), str(rules), str(tmp_path / "black"))
    store = str(tmp_path / "black-patches")
    extract_patches(str(tmp_path / "black"), store, geometry=Geometry(size=32), shard=8)
    tests = [TestSet(name="black", references=store, split="validation")]
    given = parameters(store, trained, tmp_path / "evaluation", denoisers=["nlm"], tests=tests)
    found = measured(given)
    assert max(row["psnr"] for rows in found.values() for row in rows) == CEILING == 100
    json.dumps(record_of(given, found), allow_nan=False)


def test_sets_that_were_trained_on_are_named(trained: Path, patches: str, tmp_path: Path) -> None:
    own = [
        TestSet(name="seen", references=patches, split="train", limit=1),
        TestSet(name="all", references=patches, limit=1),
        TestSet(name="unseen", references=patches, split="validation", limit=1),
    ]
    given = parameters(patches, trained, tmp_path / "evaluation", tests=own)
    record = record_of(given, measured(given))
    assert [record["tests"][n]["trained_on"] for n in ("seen", "all", "unseen")] == [["real"], ["real"], []]
    assert "NOT A VALID TEST for real, trained on these pairs" in fidelity_markdown(record)
    assert record["tests"]["unseen"]["scenes"] == 1


def test_names_of_arms() -> None:
    with pytest.raises(UserError, match="used 2 times; 'real' is the name of the control"):
        planned_arms([Arm(name="real", synthetic="awgn")], control=True)
    with pytest.raises(UserError, match=r"arm '../x': invalid name; use lower-case letters"):
        planned_arms([Arm(name="../x", synthetic="awgn")], control=True)
    for name in ("noisy", "nlm"):
        with pytest.raises(UserError, match="the name is reserved"):
            planned_arms([Arm(name=name, synthetic="awgn")], control=True)
    with pytest.raises(UserError, match="arm 'x': share is 1, but there is no source of synthetic pairs"):
        planned_arms([Arm(name="x")], control=True)


def test_wrong_networks_and_machines_stop_before_any_training(patches: str, tmp_path: Path) -> None:
    inline, arm = ClusterConfig(kind="inline"), Arm(name="a", share=0)
    for name, settings, words in (
        (
            "nafnet",
            {"encoder": (1, 1), "decoder": (1,)},
            r"\(denoiser.settings\): key .* has value .*must have the same number of levels",
        ),
        ("restormer", {"heads": (1, 2, 5, 8)}, r"heads \(1, 2, 5, 8\) must divide"),
        ("dncnn", {"depth": 1}, r"config.yaml \(denoiser.settings\): key 'depth' has value 1"),
    ):
        wrong = CONFIG.model_copy(update={"denoiser": DenoiserConfig(name=name, settings=settings)})
        with pytest.raises(UserError, match=words):
            train_denoisers([task(patches, tmp_path, arm, config=wrong)], inline)
    with pytest.raises(UserError, match="is trained on one device"):
        train_denoisers([replace(task(patches, tmp_path, arm), devices=Devices(devices=2))], inline)
    assert not list(tmp_path.glob("a/*"))


def test_what_cannot_be_compared(trained: Path, patches: str, tmp_path: Path) -> None:
    bundle = str(trained / "made/seed-0/bundle")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(bundle).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="has arm 'made' and seed 0, as has"):
        candidates([bundle, str(copy)])
    with pytest.raises(UserError, match="is not a model bundle"):
        candidates([str(tmp_path)])
    twice = [TestSet(name="a", references=patches), TestSet(name="a", references=patches, split="train")]
    with pytest.raises(UserError, match="names must be unique"):
        measurements(parameters(patches, trained, tmp_path, tests=twice))
    with pytest.raises(UserError, match="no pairs of camera 'X9'"):
        measurements(parameters(patches, trained, tmp_path, tests=[TestSet(name="a", references=patches, camera="X9")]))
