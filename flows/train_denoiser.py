"""Flow: train denoisers on real and synthetic pairs, several seeds, always beside the real control."""

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
    """What is trained on which data."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field("configs/denoisers/dncnn.yaml", description="a file of configs/denoisers/")
    output: str = Field("runs/denoisers", description="local folder: <arm>/seed-<n>/bundle")
    real: list[str] = Field(min_length=1, description="patch stores of real pairs")
    split: str = Field("train", description="rows of the stores' tables to use")
    arms: list[Arm] = Field(default_factory=list, description="training data to compare with the real pairs")
    control: bool = Field(True, description="train on the real pairs alone, too; comparisons need it")
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="one denoiser each")
    steps: int | None = Field(None, ge=1, description="optimiser steps instead of the configuration's")
    devices: Devices = Field(default_factory=Devices, description="where each is trained")
    max_minutes: float | None = Field(None, gt=0, description="stop resumably after so many minutes of a training")
    register_as: str | None = Field(
        None, description="REGISTRY/NAME that the bundles become versions of, where other machines find them"
    )
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"),
        description="where denoisers are trained, side by side where it has several workers",
    )

    def tasks(self) -> list[DenoiserTask]:
        """One training per arm and seed, seeds first: the first comparison is there early."""
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
    """Returns the bundles by arm and seed; ``finished`` False means that time ended first: run it again."""
    tasks = parameters.tasks()
    found = task_train_denoisers(tasks, parameters.cluster, reporter("denoisers", "trainings"))
    publish_markdown("denoiser-training", lambda: f"# Denoisers trained\n\n{trained_table(found)}")
    finished = all(result["finished"] for result in found)
    if finished:
        _make_known(parameters, found)
    return {
        "output": parameters.output,
        "finished": finished,
        "denoisers": found,
        "commit": commit(),
    }


def _make_known(parameters: TrainDenoiserParameters, found: list[dict[str, Any]]) -> None:
    """Put the bundles where they were asked to be, and tell of all by one event: they are to be compared."""
    for result in found:
        log(f"{result['arm']} seed {result['seed']}: digest {result['digest']}")
    if (location := parameters.register_as) is None:
        return
    models = [
        task_add_trained(result["bundle"], location, f"{result['arm']} seed {result['seed']}, {parameters.config}")
        for result in found
    ]
    announce_denoisers(models, [result["digest"] for result in found])
