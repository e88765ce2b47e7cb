"""Train denoisers on real pairs, on synthetic ones or on both by halves; several seeds, beside the real control."""

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
from tasks.denoising.stored_pairs import StoredPairs
from tasks.models.denoisers import CLASSICAL
from tasks.reports.pages import TEXTS
from tasks.runtime.clusters import ClusterConfig, run_each
from tasks.runtime.configuration import validate
from tasks.runtime.devices import Devices, create_fabric
from tasks.runtime.progress import Progress, report
from tasks.runtime.provenance import content_key
from tasks.runtime.steps import step
from tasks.stores.aliases import resolve_alias
from tasks.stores.corpus_store import COMMIT as CORPUS
from tasks.stores.io.filesystem import exists, join
from tasks.training.pair_samples import PairSamples
from tasks.training.pair_sources import GeneratedPairs, PairSource, RealPairs
from tasks.training.run import NON_IDENTITY_FIELDS, started_at, training_facts

REAL = "real"
_RESERVED = ("noisy", *CLASSICAL)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")


class DenoiserTrainingConfig(BaseModel):
    """One file of configs/denoisers/."""

    model_config = ConfigDict(extra="forbid")

    denoiser: DenoiserConfig = Field(description="which network")
    train: DenoiserSettings = Field(description="how it is trained")


class Arm(BaseModel):
    """One kind of training data that is compared with the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="what it is called in folders and tables: small letters, digits, _ . + -")
    synthetic: str | None = Field(
        None,
        description="a corpus, or a noise generator that draws new noise for every sample: 'shipped', a bundle or a "
        "baseline's name, on the clean side of the real pairs",
    )
    repeats: int | None = Field(None, ge=1, description="only the first so many draws of a corpus; none: all")
    share: float = Field(1.0, ge=0, le=1, description="probability that a sample is synthetic; .5: half and half")


@dataclass(frozen=True)
class DenoiserWork:
    """One denoiser to train. Travels to workers."""

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
    """The arms with the control, training on real pairs alone, before them.

    Raises:
        UserError: a name that is double, reserved or no name for a folder.
    """
    planned = ([Arm(name=REAL, synthetic=None, share=0.0)] if control else []) + arms
    names = [arm.name for arm in planned]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"arm {name!r}: names are made of small letters, digits, '_', '.', '+' and '-'")
        if names.count(name) > 1:
            told = f"; {REAL!r} is the control's, which is always trained" if name == REAL else ""
            raise UserError(f"arm {name!r} is there {names.count(name)} times{told}; choose another name")
        if name in _RESERVED:
            raise UserError(f"arm {name!r}: the name stands for something else in tables; choose another one")
    for arm in planned:
        if arm.share > 0 and arm.synthetic is None:
            raise UserError(f"arm {arm.name!r}: {arm.share:g} of its samples are synthetic, but it names no source")
    return planned


def pair_samples(task: DenoiserWork) -> tuple[PairSamples, list[dict[str, Any]]]:
    """The samples of a training, and what its data are: digest, licence and number of pairs of each source.

    Raises:
        UserError: a source is not there, or does not fit.
    """
    arm, settings = task.arm, task.config.train
    real: list[PairSource] = [RealPairs(url, task.split) for url in task.real] if arm.share < 1 else []
    synthetic: list[PairSource] = []
    if arm.synthetic is not None and arm.share > 0:
        if exists(join(resolve_alias(arm.synthetic), CORPUS)):
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


def built(task: DenoiserWork) -> nn.Module:
    """The untrained network.

    Raises:
        UserError: there is none of that name, or its settings are wrong.
    """
    config = task.config.denoiser
    if config.name in DENOISERS:
        validate(DENOISERS[config.name][0], config.settings, f"{task.source} (denoiser.settings)")
    return build(config)


def train_one(task: DenoiserWork) -> dict[str, Any]:
    """Train one denoiser and publish its bundle, or find that this was done. Run again to resume.

    Returns:
        Arm, seed, place and digest of the bundle, steps, and whether it is ``finished`` (False: time ran out).
    """
    samples, data = pair_samples(task)
    settings = task.config.train.model_copy(update={"seed": task.seed})
    # Normalisation layers see a part of a batch at a time, so here the parts decide the weights.
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
    started = started_at(folder, identity)
    fabric = create_fabric(task.devices)
    fabric.launch()
    precision = Precision.best(fabric.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)  # networks of one seed start alike, whatever they are trained on
        network = built(task)
    stage = f"train {task.arm.name} seed {task.seed}"

    def tell(step: TrainingProgress) -> None:
        report(Progress(stage, step.step, step.steps, "steps", f"loss {step.loss:.3g}"))

    outcome = run_stage(
        DenoiserObjective(network, settings, precision),
        samples,
        settings,
        folder,
        identity=identity,
        machine=Machine(fabric, task.devices.workers, task.max_minutes),
        report=tell,
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
    tasks: list[DenoiserWork], cluster: ClusterConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[dict[str, Any]]:
    """Train all, side by side where the cluster has several workers; returns :func:`train_one` of each, in order.

    Raises:
        UserError: one that cannot be trained; found before any training begins.
    """
    for task in tasks:
        if task.devices.count * task.devices.nodes > 1:
            raise UserError(
                "devices: a denoiser is trained on one device; a cluster of workers trains several side by side"
            )
        with torch.device("meta"):
            built(task)
        pair_samples(task)
    done: dict[tuple[str, int], dict[str, Any]] = {}
    progress(0, len(tasks))
    for task, result in run_each(cluster, train_one, tasks):
        done[task.arm.name, task.seed] = result
        progress(len(done), len(tasks))
    return [done[task.arm.name, task.seed] for task in tasks]


task_train_denoisers = step("train_denoisers")(train_denoisers)
