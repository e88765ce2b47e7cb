"""Steps of a training of any kind: load its configuration, train on devices, publish the bundle, update its card."""

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
    """Load a training configuration: of a baseline if it has the key ``baseline``, else of the noise model."""
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
    """Train all stages on ``devices``, or resume an interrupted training; see :meth:`TrainingRun.train`.

    Args:
        config: Training configuration.
        output: Local folder.
        devices: Devices to use.
        source: Path of the configuration file, named in errors.
        max_minutes: Time limit; the training stops with a checkpoint.
        report: Called with the progress of rank 0.
    """
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
    return config.create_run(output, source=source, machine=Machine(fabric, workers, max_minutes)).train(report)


def publish_bundle(run: TrainingRun, command: str) -> dict[str, str]:
    """Write the bundle of a finished training from the last checkpoints of its stages."""
    outcomes = run.train()
    if not run.finished(outcomes):
        raise UserError(f"{run.output}: the training is not finished; run the same command again to resume it")
    return run.publish(outcomes, command)


def write_card(bundle: Path, evaluations: Sequence[Evaluation]) -> None:
    """Add the metrics of evaluations to the card of a published bundle; the digest does not cover the card."""
    config = bundle_config(bundle)
    model, training = config["model"], config["training"]
    if config["format"] == FORMAT:
        text = model_card(ModelConfig.model_validate(model), training, evaluations)
    else:
        text = baseline_card(model, training, evaluations)
    write_bytes(str(bundle / CARD), text.encode())


def report_step(step: TrainingProgress) -> None:
    """Report a training step to the current progress listener."""
    report(Progress(f"train {step.stage}", step.step, step.steps, "steps", f"loss {step.loss:.3g}"))


task_train_stages = step("train_stages")(train_stages)
task_publish_bundle = step("publish_bundle")(publish_bundle)
task_write_card = step("write_model_card")(write_card)
