"""Train a noise model from patch stores: PAE, then P-DiT, then a bundle. Resumes with the same command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.bundle import CARD, bundle_config, save_bundle
from pngmodel.errors import UserError
from pngmodel.metrics.protocols import METRICS
from pngmodel.model import NoiseModel, Precision
from pngmodel.presets import GENERATION_ONLY, PRESETS, ModelConfig
from pngmodel.training.loop import Machine, Outcome, run_stage
from pngmodel.training.loop import Progress as TrainingProgress
from pngmodel.training.objective import Objective
from pngmodel.training.pae import AutoencoderObjective, measure_latent
from pngmodel.training.pdit import TransformerObjective
from pngmodel.training.samples import NoiseBatch
from pngmodel.training.settings import DataSettings, PDiTSettings, StageSettings
from tasks.configuration import validate
from tasks.devices import Devices, fabric_of, run_on
from tasks.evaluation import Evaluation
from tasks.pages import TEXTS
from tasks.progress import Progress, report
from tasks.provenance import commit, content_key, device_name, packages
from tasks.reporting import markdown_table
from tasks.stores.filesystem import exists, read_json, write_bytes, write_json
from tasks.stores.layout import ARRAYS
from tasks.stores.patches import PatchStore
from tasks.trainingsamples import StoreSamples

_COLOURS = 3
INDECISIVE = ("compile", "checkpoint_every", "keep_checkpoints", "log_every", "pictures_every", "accumulate")


class TrainingData(DataSettings):
    """Patch stores to train on, and how their pairs are varied and drawn."""

    stores: list[str] = Field(min_length=1, description="patch store URLs, relative to the working folder")
    split: str = Field("train", description="rows of the stores' tables to use")


class TrainingConfig(BaseModel):
    """One file of configs/models/."""

    model_config = ConfigDict(extra="forbid")

    preset: str = Field(description=f"one of {', '.join(PRESETS)}")
    model: dict[str, Any] = Field(default_factory=dict, description="preset fields to change, e.g. {depth: 4}")
    data: TrainingData
    pae: StageSettings
    pdit: PDiTSettings

    def model_settings(self, source: str) -> ModelConfig:
        """The preset with this file's changes, validated."""
        if self.preset not in PRESETS:
            raise UserError(f"{source}: key 'preset' is {self.preset!r}; choose one of {', '.join(PRESETS)}")
        return validate(ModelConfig, PRESETS[self.preset].model_dump() | self.model, f"{source} (model)")


class TrainingRun:
    """A training in one output folder: its data, its model, its two stages."""

    def __init__(
        self,
        config: TrainingConfig,
        output: Path,
        *,
        device: str = "cpu",
        source: str = "config",
        machine: Machine | None = None,
    ) -> None:
        """``machine`` is where it runs, default one process on ``device``.

        Raises:
            UserError: the configuration does not fit the data, the model or the machine.
        """
        if ":/" in str(output):
            raise UserError(f"{output}: training writes to a local folder; copy the finished bundle to object storage")
        self.config, self.output = config, output
        self.settings = config.model_settings(source)
        if config.pdit.train_prompts and self.settings.latent_init != "lossless":
            raise UserError(
                f"{source}: key 'pdit.train_prompts' is true but the latent is learned; set it to false, "
                "or model.latent_init to lossless"
            )
        self.machine = machine or Machine(fabric_of(Devices(device=device)))
        self.precision = Precision.best(self.machine.fabric.device)
        self.stores = [PatchStore.open(url) for url in config.data.stores]
        for store in self.stores:
            store.require(*ARRAYS)
            if store.layout.channels != _COLOURS:
                raise UserError(
                    f"{store.url}: patches have {store.layout.channels} channels; the model learns from RGB"
                )
        data = DataSettings(**config.data.model_dump(exclude={"stores", "split"}))
        samples = StoreSamples(self.stores, config.data.split, data, self.settings, seed=config.pdit.seed)
        other = config.pdit.reference_crop if config.pdit.reference == "same_image" else None
        self.pae_samples = samples.of(crop=config.pae.crop, reference_crop=None)
        self.pdit_samples = samples.of(crop=config.pdit.crop, reference_crop=other)
        # The model starts from its own seed: equal on every machine, whatever ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.pae.seed)
            self.model = NoiseModel(self.settings).to(self.precision.device)
        self._commit = self._first_commit()

    def _first_commit(self) -> str:
        """The code that began this training: a later rerun, which only replays, must not claim the weights."""
        record = str(self.output / "provenance.json")
        if exists(record) and (found := read_json(record)).get("identity") == self.identity:
            return str(found["commit"])
        begun = any(
            self.output.glob("*/checkpoints/step-*")
        )  # another training's: it will be refused, and stays as it is
        if self.machine.fabric.global_rank == 0 and not begun:
            write_json(record, {"identity": self.identity, "commit": commit()})
        return commit()

    @property
    def identity(self) -> str:
        """Digest of everything that decides the weights: configuration and data."""
        content = self.config.model_dump(mode="json")
        content["data"].pop("stores")  # where the data lies does not matter, what it is does
        content.pop("model")  # stands resolved below
        for stage in ("pae", "pdit"):
            for name in INDECISIVE:
                content[stage].pop(name)
        return content_key(
            {
                "config": content,
                "model": self.settings.model_dump(mode="json", exclude=set(GENERATION_ONLY)),
                "data": [s.digest for s in self.stores],
            }
        )

    def train_autoencoder(self, report: Callable[[TrainingProgress], None] = lambda p: None) -> Outcome:
        """Stage 1, and the latent statistics it leaves for stage 2."""
        settings = self.config.pae
        objective = AutoencoderObjective(self.model, settings, self.precision)
        outcome = self._stage(objective, self.pae_samples, settings, report)
        if outcome.finished:
            measure_latent(self.model, self.pae_samples, settings, self.precision)
        return outcome

    def train_transformer(self, report: Callable[[TrainingProgress], None] = lambda p: None) -> Outcome:
        """Stage 2; call after a finished stage 1 of the same object (which a resume replays in seconds)."""
        objective = TransformerObjective(self.model, self.config.pdit, self.precision)
        return self._stage(objective, self.pdit_samples, self.config.pdit, report)

    def _stage(
        self,
        objective: Objective[NoiseBatch],
        samples: StoreSamples,
        settings: StageSettings,
        report: Callable[[TrainingProgress], None],
    ) -> Outcome:
        folder = self.output / objective.name
        return run_stage(
            objective, samples, settings, folder, identity=self.identity, machine=self.machine, report=report
        )

    def train(self, report: Callable[[TrainingProgress], None] = lambda p: None) -> tuple[Outcome, Outcome | None]:
        """Both stages as far as time allows; the second is None when the first did not end."""
        pae = self.train_autoencoder(report)
        return pae, self.train_transformer(report) if pae.finished else None

    def publish(self, pae: Outcome, pdit: Outcome, command: str) -> dict[str, str]:
        """Write the bundle to ``output/bundle``; returns its place and digest."""
        training = {
            "command": command,
            "commit": self._commit,
            "config": self.config.model_dump(mode="json"),
            "data": [{"digest": s.digest, "licence": s.licence, "patches": len(s)} for s in self.stores],
            "device": device_name(str(self.precision.device)),
            "precision": str(self.precision.dtype).removeprefix("torch."),
            "packages": packages(),
            "seconds": {"pae": round(pae.seconds), "pdit": round(pdit.seconds)},
            "steps": {"pae": pae.step, "pdit": pdit.step},
        }
        folder = self.output / "bundle"
        digest = save_bundle(self.model, folder, training=training, card=_card(self.settings, training))
        return {"bundle": str(folder), "digest": digest}


def _card(settings: ModelConfig, training: dict[str, Any], evaluations: Sequence[Evaluation] = ()) -> str:
    hours = sum(training["seconds"].values()) / 3600
    data = "\n".join(
        f"- {d['patches']} patches (those of split `{training['config']['data']['split']}` were used), {d['licence']}, "
        f"digest `{d['digest'][:16]}`"
        for d in training["data"]
    )
    return TEXTS.get_template("model_card.md").render(
        settings=settings,
        training=training,
        hours=f"{hours:.2f}",
        data=data,
        figures=[(e.record, markdown_table(e.record["figures"], METRICS)) for e in evaluations],
    )


def resolved(config: TrainingConfig, source: str) -> dict[str, Any]:
    """The configuration with every default in place, and how many parameters each part has."""
    settings = config.model_settings(source)
    with torch.device("meta"):
        model = NoiseModel(settings)
    parts = {
        "encoder": model.autoencoder.encoder,
        "decoder": model.autoencoder.decoder,
        "transformer": model.transformer,
    }
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return {"config": config.model_dump(mode="json") | {"model": settings.model_dump(mode="json")}, "parameters": sizes}


def train_stages(
    config: TrainingConfig,
    output: Path,
    devices: Devices,
    source: str,
    max_minutes: float | None = None,
    report: Callable[[TrainingProgress], None] = lambda p: None,
) -> tuple[Outcome, Outcome | None]:
    """Train both stages on ``devices``; run it again to resume. See :meth:`TrainingRun.train`."""
    work = partial(_train_here, config, output, source, devices.workers, max_minutes)
    outcomes: tuple[Outcome, Outcome | None] = run_on(devices, work, report)
    return outcomes


def _train_here(
    config: TrainingConfig,
    output: Path,
    source: str,
    workers: int,
    max_minutes: float | None,
    fabric: Fabric,
    report: Callable[[TrainingProgress], None],
) -> tuple[Outcome, Outcome | None]:
    machine = Machine(fabric, workers, max_minutes)
    return TrainingRun(config, output, source=source, machine=machine).train(report)


def publish_bundle(run: TrainingRun, command: str) -> dict[str, str]:
    """The bundle of a finished training, whose stages are read back from their last checkpoints."""
    pae, pdit = run.train()
    if pdit is None or not pdit.finished:
        raise UserError(f"{run.output}: the training is not finished; run the same command again")
    return run.publish(pae, pdit, command)


def write_card(bundle: Path, evaluations: Sequence[Evaluation]) -> None:
    """Put the figures into a published bundle's card (which its digest does not cover)."""
    config = bundle_config(bundle)
    settings = ModelConfig.model_validate(config["model"])
    write_bytes(str(bundle / CARD), _card(settings, config["training"], evaluations).encode())


def report_step(step: TrainingProgress) -> None:
    """Pass a training step on to whoever listens."""
    report(Progress(f"train {step.stage}", step.step, step.steps, "steps", f"loss {step.loss:.3g}"))


task_train_stages = task(cache_policy=NO_CACHE, name="train_stages")(train_stages)
task_publish_bundle = task(cache_policy=NO_CACHE, name="publish_bundle")(publish_bundle)
task_write_card = task(cache_policy=NO_CACHE, name="write_model_card")(write_card)
