"""Flow: train denoisers on real and synthetic pairs, several seeds each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.pipeline import pipeline, tail
from tasks.denoising.parameters import TrainDenoiserParameters
from tasks.denoising.training import DenoiserTask, DenoiserTrainingConfig, planned_arms, task_train_denoisers
from tasks.models.events import announce_denoisers
from tasks.models.registry import task_add_trained
from tasks.reports.tables import trained_table
from tasks.runtime.artifacts import log, publish_markdown
from tasks.runtime.configuration import load_yaml
from tasks.runtime.progress import reporter
from tasks.runtime.provenance import commit


def _tasks(parameters: TrainDenoiserParameters) -> list[DenoiserTask]:
    """Return one training per arm and seed, ordered by seed, so that a first comparison is available early."""
    config = load_yaml(parameters.config, DenoiserTrainingConfig)
    if parameters.steps is not None:
        config = config.model_copy(update={"train": config.train.model_copy(update={"steps": parameters.steps})})
    return [
        DenoiserTask(
            config=config,
            source=parameters.config,
            real=tuple(parameters.real),
            split=parameters.split,
            arm=arm,
            seed=seed,
            folder=str(Path(parameters.output) / arm.name / f"seed-{seed}"),
            devices=parameters.placement,
            max_minutes=parameters.max_minutes,
        )
        for seed in parameters.seeds
        for arm in planned_arms(parameters.arms, control=parameters.control)
    ]


def _data(p: TrainDenoiserParameters) -> str:
    return ", ".join([*map(tail, p.real), *(arm.name for arm in p.arms)])


@pipeline(
    "train_denoiser",
    TrainDenoiserParameters,
    lambda p: f"train-denoiser {tail(p.output)}: {tail(p.config, 1)} on {_data(p)}, {len(p.seeds)} seeds",
)
def train_denoiser(parameters: TrainDenoiserParameters) -> dict[str, Any]:
    """Train one denoiser per arm and seed; returns the bundles. If ``finished`` is false, rerun to resume."""
    tasks = _tasks(parameters)
    found = task_train_denoisers(tasks, parameters.cluster, reporter("denoisers", "trainings"))
    publish_markdown("denoiser-training", lambda: f"# Denoisers trained\n\n{trained_table(found)}")
    finished = all(result["finished"] for result in found)
    if finished:
        _register(parameters, found)
    return {
        "output": parameters.output,
        "finished": finished,
        "denoisers": found,
        "commit": commit(),
    }


def _register(parameters: TrainDenoiserParameters, found: list[dict[str, Any]]) -> None:
    """Register the bundles and announce all of them by one event, so that they are compared."""
    for result in found:
        log(f"{result['arm']} seed {result['seed']}: digest {result['digest']}")
    if (location := parameters.register_as) is None:
        return
    models = [
        task_add_trained(result["bundle"], location, f"{result['arm']} seed {result['seed']}, {parameters.config}")
        for result in found
    ]
    announce_denoisers(models, [result["digest"] for result in found])
