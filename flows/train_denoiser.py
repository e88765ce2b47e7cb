"""Flow: train denoisers on real and synthetic pairs, with several seeds and a control on real pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.denoising.training import Arm, DenoiserTask, DenoiserTrainingConfig, planned_arms, task_train_denoisers
from tasks.models.events import announce_denoisers
from tasks.models.registry import task_add_trained
from tasks.reports.tables import trained_table
from tasks.runtime.artifacts import log, publish_markdown
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.configuration import load_yaml
from tasks.runtime.devices import Devices
from tasks.runtime.progress import reporter
from tasks.runtime.provenance import commit


class TrainDenoiserParameters(BaseModel):
    """Parameters of train_denoiser."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field("configs/denoisers/dncnn.yaml", description="training configuration, see configs/denoisers/")
    output: str = Field("runs/denoisers", description="local folder; bundles are written to <arm>/seed-<n>/bundle")
    real: list[str] = Field(min_length=1, description="patch stores of real pairs")
    split: str = Field("train", description="split of the stores to use")
    arms: list[Arm] = Field(default_factory=list, description="training data to compare with real pairs")
    control: bool = Field(True, description="also train on real pairs only; required for comparisons")
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="seeds; one denoiser per arm and seed")
    steps: int | None = Field(None, ge=1, description="optimiser steps; default: as configured")
    devices: Devices = Field(default_factory=Devices, description="device of each training")
    max_minutes: float | None = Field(
        None, gt=0, description="time limit of a training in minutes; run again to resume"
    )
    register_as: str | None = Field(None, description="REGISTRY/NAME to which the bundles are added as versions")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"),
        description="cluster; one task per denoiser, in parallel on several workers",
    )

    def tasks(self) -> list[DenoiserTask]:
        """Return one training per arm and seed, ordered by seed, so that a first comparison is available early."""
        config = load_yaml(self.config, DenoiserTrainingConfig)
        if self.steps is not None:
            config = config.model_copy(update={"train": config.train.model_copy(update={"steps": self.steps})})
        return [
            DenoiserTask(
                config=config,
                source=self.config,
                real=tuple(self.real),
                split=self.split,
                arm=arm,
                seed=seed,
                folder=str(Path(self.output) / arm.name / f"seed-{seed}"),
                devices=self.devices,
                max_minutes=self.max_minutes,
            )
            for seed in self.seeds
            for arm in planned_arms(self.arms, control=self.control)
        ]


def _data(p: TrainDenoiserParameters) -> str:
    return ", ".join([*map(tail, p.real), *(arm.name for arm in p.arms)])


@pipeline(
    "train_denoiser",
    TrainDenoiserParameters,
    lambda p: f"train-denoiser {tail(p.output)}: {tail(p.config, 1)} on {_data(p)}, {len(p.seeds)} seeds",
)
def train_denoiser(parameters: TrainDenoiserParameters) -> dict[str, Any]:
    """Return the bundles by arm and seed. If ``finished`` is False, the time limit was reached: run it again."""
    tasks = parameters.tasks()
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
    """Add the bundles to the registry if requested, and announce them in one event for their comparison."""
    for result in found:
        log(f"{result['arm']} seed {result['seed']}: digest {result['digest']}")
    if (location := parameters.register_as) is None:
        return
    models = [
        task_add_trained(result["bundle"], location, f"{result['arm']} seed {result['seed']}, {parameters.config}")
        for result in found
    ]
    announce_denoisers(models, [result["digest"] for result in found])
