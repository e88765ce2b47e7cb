"""Training of denoisers on real pairs, synthetic pairs or a mix, with several seeds and a control on real pairs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from pngmodel.bundle import bundle_config, verify_bundle, write_bundle
from pngmodel.denoisers import DENOISER_FORMAT, DENOISERS, DenoiserConfig, build
from pngmodel.errors import UserError
from pngmodel.network.model import Precision
from pngmodel.training.denoising import DenoiserObjective, DenoiserSettings
from pngmodel.training.loop import Machine, run_stage
from pngmodel.training.loop import Progress as TrainingProgress
from tasks.denoising.parameters import Arm
from tasks.denoising.stored_pairs import StoredPairs
from tasks.models.denoisers import CLASSICAL
from tasks.reports.pages import TEXTS
from tasks.runtime.clusters import run_each
from tasks.runtime.configuration import validate
from tasks.runtime.devices import create_fabric
from tasks.runtime.parameters import ClusterConfig, Devices
from tasks.runtime.progress import Progress, report
from tasks.runtime.provenance import content_key
from tasks.runtime.steps import step
from tasks.stores.aliases import resolve_alias
from tasks.stores.kinds import is_kind
from tasks.training.pair_samples import PairSamples
from tasks.training.pair_sources import GeneratedPairs, PairSource, RealPairs
from tasks.training.run import NON_IDENTITY_FIELDS, starting_commit, training_facts

REAL = "real"
_RESERVED = ("noisy", *CLASSICAL)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")


class DenoiserTrainingConfig(BaseModel):
    """Configuration of the training of a denoiser: one file in configs/denoisers/."""

    model_config = ConfigDict(extra="forbid")

    denoiser: DenoiserConfig = Field(description="Network.")
    train: DenoiserSettings = Field(description="Training settings.")


@dataclass(frozen=True)
class DenoiserTask:
    """Task of a worker: one denoiser to train."""

    config: DenoiserTrainingConfig
    source: str
    real: tuple[str, ...]
    split: str
    arm: Arm
    seed: int
    folder: str
    devices: Devices
    max_minutes: float | None


def planned_arms(arms: list[Arm], *, control: bool) -> list[Arm]:
    """Return the arms, with the control (real pairs only) first if requested.

    Raises:
        UserError: A name is used twice, reserved or not valid for a folder, or an arm has no source of synthetic pairs.
    """
    planned = ([Arm(name=REAL, synthetic=None, share=0.0)] if control else []) + arms
    names = [arm.name for arm in planned]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"arm {name!r}: invalid name; use lower-case letters, digits, '_', '.', '+' and '-', starting with a "
                "letter or digit"
            )
        if names.count(name) > 1:
            hint = f"; {REAL!r} is the name of the control, which is always trained" if name == REAL else ""
            raise UserError(f"arm {name!r}: the name is used {names.count(name)} times{hint}; use another name")
        if name in _RESERVED:
            raise UserError(f"arm {name!r}: the name is reserved ({', '.join(_RESERVED)}); use another name")
    for arm in planned:
        if arm.share > 0 and arm.synthetic is None:
            raise UserError(
                f"arm {arm.name!r}: share is {arm.share:g}, but there is no source of synthetic pairs; set synthetic, "
                "or share to 0"
            )
    return planned


def pair_samples(task: DenoiserTask) -> tuple[PairSamples, list[dict[str, Any]]]:
    """Return the samples of a training, and kind, digest, licence and number of pairs of each source.

    Raises:
        UserError: A source does not exist or is not suitable.
    """
    arm, settings = task.arm, task.config.train
    real: list[PairSource] = [RealPairs(url, task.split) for url in task.real] if arm.share < 1 else []
    synthetic: list[PairSource] = []
    if arm.synthetic is not None and arm.share > 0:
        if is_kind(resolve_alias(arm.synthetic), "corpus"):
            synthetic = [StoredPairs(arm.synthetic, arm.repeats)]
        else:
            device = task.devices.device
            synthetic = [GeneratedPairs(url, task.split, arm.synthetic, device=device) for url in task.real]
    samples = PairSamples(real, synthetic, share=arm.share, crop=settings.crop, flips=settings.flips, seed=task.seed)
    kinds = [("real", source) for source in real] + [("synthetic", source) for source in synthetic]
    facts = [
        {"kind": kind, "digest": source.digest, "licence": source.licence, "pairs": len(source)}
        for kind, source in kinds
    ]
    return samples, facts


def build_network(task: DenoiserTask) -> nn.Module:
    """Build the untrained network.

    Raises:
        UserError: There is no network of that name, or its settings are invalid.
    """
    config = task.config.denoiser
    if config.name in DENOISERS:
        validate(DENOISERS[config.name][0], config.settings, f"{task.source} (denoiser.settings)")
    return build(config)


def train_one(task: DenoiserTask) -> dict[str, Any]:
    """Train a denoiser and publish its bundle, unless it is already published. Call it again to resume.

    Returns:
        Arm, seed, location and digest of the bundle, steps, and ``finished`` (False if the time limit was reached).
    """
    samples, data = pair_samples(task)
    settings = task.config.train.model_copy(update={"seed": task.seed})
    # Normalisation layers use the statistics of each micro-batch, so gradient accumulation affects the weights.
    identity_settings = settings.model_dump(
        mode="json", exclude=set(NON_IDENTITY_FIELDS) - {"gradient_accumulation_steps"}
    )
    denoiser = task.config.denoiser.model_dump(mode="json")
    identity = content_key([denoiser, identity_settings, task.arm.share, data])
    facts: dict[str, Any] = {"arm": task.arm.name, "seed": task.seed, "steps": settings.steps}
    folder = Path(task.folder)
    bundle = folder / "bundle"
    if bundle.exists() and bundle_config(bundle)["training"].get("identity") == identity:
        return facts | {"bundle": str(bundle), "digest": verify_bundle(bundle), "finished": True}
    started = starting_commit(folder, identity)
    fabric = create_fabric(task.devices)
    fabric.launch()
    precision = Precision.best(fabric.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)  # arms with the same seed have the same initial weights
        network = build_network(task)
    stage = f"train {task.arm.name} seed {task.seed}"

    def report_step(step: TrainingProgress) -> None:
        report(Progress(stage, step.step, step.steps, "steps", f"loss {step.loss:.3g}"))

    outcome = run_stage(
        DenoiserObjective(network, settings, precision),
        samples,
        settings,
        folder,
        identity=identity,
        machine=Machine(fabric, task.devices.workers, task.max_minutes),
        report=report_step,
    )
    if not outcome.finished:
        return facts | {"steps": outcome.step, "finished": False}
    training = training_facts(task.config, data, precision, started) | {
        "arm": task.arm.model_dump(mode="json"),
        "identity": identity,
        "seconds": round(outcome.seconds),
        "seed": task.seed,
        "split": task.split,
        "steps": outcome.step,
    }
    card = TEXTS.get_template("denoiser_card.md").render(
        training=training,
        denoiser=task.config.denoiser,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    digest = write_bundle(network, bundle, kind=DENOISER_FORMAT, model=denoiser, training=training, card=card)
    return facts | {"bundle": str(bundle), "digest": digest, "finished": True}


def train_denoisers(
    tasks: list[DenoiserTask], cluster: ClusterConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[dict[str, Any]]:
    """Train all denoisers, in parallel on the workers of the cluster; return the results of :func:`train_one` in order.

    Raises:
        UserError: A denoiser cannot be trained; checked before any training starts.
    """
    for task in tasks:
        if task.devices.devices * task.devices.nodes > 1:
            raise UserError(
                f"devices: {task.devices.devices * task.devices.nodes} devices requested, but a denoiser is trained on "
                "one device; use a cluster with several workers to train several denoisers in parallel"
            )
        with torch.device("meta"):
            build_network(task)
        pair_samples(task)
    done: dict[tuple[str, int], dict[str, Any]] = {}
    progress(0, len(tasks))
    for task, result in run_each(cluster, train_one, tasks):
        done[task.arm.name, task.seed] = result
        progress(len(done), len(tasks))
    return [done[task.arm.name, task.seed] for task in tasks]


task_train_denoisers = step("train_denoisers")(train_denoisers)
