"""Trainings of any kind by their file: begin or take up, train on devices, publish, put figures into the card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from pngmodel.bundle import CARD, FORMAT, bundle_config
from pngmodel.errors import UserError
from pngmodel.network.presets import ModelConfig
from pngmodel.training.loop import Machine, Outcome
from pngmodel.training.loop import Progress as TrainingProgress
from tasks.reports.results import Evaluation
from tasks.runtime.configuration import read_yaml, validate
from tasks.runtime.devices import run_on
from tasks.runtime.parameters import Devices
from tasks.runtime.progress import Progress, report
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import write_bytes
from tasks.training.baseline import BaselineTrainingConfig, baseline_card
from tasks.training.noise_model import TrainingConfig, model_card
from tasks.training.run import Report, TrainingFile, TrainingRun, silent


def load_training(path: str) -> TrainingFile:
    """A file of configs/models/: with the key ``baseline`` it trains one of those, else the noise model."""
    content = read_yaml(path)
    kind = BaselineTrainingConfig if isinstance(content, dict) and "baseline" in content else TrainingConfig
    return validate(kind, content, path)


def train_stages(
    config: TrainingFile,
    output: Path,
    devices: Devices,
    source: str,
    max_minutes: float | None = None,
    report: Report = silent,
) -> dict[str, Outcome]:
    """Train all stages on ``devices``; run it again to resume. See :meth:`TrainingRun.train`."""
    task = partial(_train_here, config, output, source, devices.workers, max_minutes)
    outcomes: dict[str, Outcome] = run_on(devices, task, report)
    return outcomes


def _train_here(
    config: TrainingFile,
    output: Path,
    source: str,
    workers: int,
    max_minutes: float | None,
    fabric: Fabric,
    report: Report,
) -> dict[str, Outcome]:
    return config.begin(output, source=source, machine=Machine(fabric, workers, max_minutes)).train(report)


def publish_bundle(run: TrainingRun, command: str) -> dict[str, str]:
    """The bundle of a finished training, whose stages are read back from their last checkpoints."""
    outcomes = run.train()
    if not run.finished(outcomes):
        raise UserError(f"{run.output}: the training is not finished; run the same command again")
    return run.publish(outcomes, command)


def write_card(bundle: Path, evaluations: Sequence[Evaluation]) -> None:
    """Put the figures into a published bundle's card (which its digest does not cover)."""
    config = bundle_config(bundle)
    model, training = config["model"], config["training"]
    if config["format"] == FORMAT:
        text = model_card(ModelConfig.model_validate(model), training, evaluations)
    else:
        text = baseline_card(model, training, evaluations)
    write_bytes(str(bundle / CARD), text.encode())


def report_step(step: TrainingProgress) -> None:
    """Pass a training step on to whoever listens."""
    report(Progress(f"train {step.stage}", step.step, step.steps, "steps", f"loss {step.loss:.3g}"))


task_train_stages = step("train_stages")(train_stages)
task_publish_bundle = step("publish_bundle")(publish_bundle)
task_write_card = step("write_model_card")(write_card)
