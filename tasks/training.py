"""Train a noise model from patch stores: PAE, then P-DiT, then a bundle. Resumes with the same command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.bundle import CARD, bundle_config, save_bundle
from pngmodel.errors import UserError
from pngmodel.metrics.protocols import METRICS
from pngmodel.model import NoiseModel, Precision
from pngmodel.presets import GENERATION_ONLY, PRESETS, ModelConfig
from pngmodel.training.loop import Outcome, run_stage
from pngmodel.training.loop import Progress as TrainingProgress
from pngmodel.training.pae import AutoencoderObjective, measure_latent
from pngmodel.training.pdit import TransformerObjective
from pngmodel.training.samples import TrainingPair, WhitenedPairs
from pngmodel.training.settings import DataSettings, PDiTSettings, StageSettings
from tasks.configuration import validate
from tasks.evaluation import Evaluation
from tasks.progress import Progress, report
from tasks.provenance import commit, content_key, device_name, packages
from tasks.reporting import markdown_table
from tasks.stores.filesystem import exists, read_json, write_bytes, write_json
from tasks.stores.layout import ARRAYS
from tasks.stores.patches import PatchStore
from tasks.stores.shardfile import Pixels

_CARDS = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, keep_trailing_newline=True
)


_COLOURS = 3


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

    def __init__(self, config: TrainingConfig, output: Path, *, device: str = "cpu", source: str = "config") -> None:
        if ":/" in str(output):
            raise UserError(f"{output}: training writes to a local folder; copy the finished bundle to object storage")
        self.config, self.output = config, output
        self.settings = config.model_settings(source)
        for name, stage in (("pae", config.pae), ("pdit", config.pdit)):
            if stage.crop % 8:
                raise UserError(f"{source}: key '{name}.crop' is {stage.crop}; it must be a multiple of 8")
        if config.pdit.train_prompts and self.settings.latent_init != "lossless":
            raise UserError(
                f"{source}: key 'pdit.train_prompts' is true but the latent is learned; set it to false, "
                "or model.latent_init to lossless"
            )
        self.precision = Precision.best(device)
        self.stores = [PatchStore.open(url) for url in config.data.stores]
        for store in self.stores:
            store.require(*ARRAYS)
            if store.layout.channels != _COLOURS:
                raise UserError(
                    f"{store.url}: patches have {store.layout.channels} channels; the model learns from RGB"
                )
        named = {row["dataset"] for store in self.stores for row in store.table.select(["dataset"]).to_pylist()}
        if config.data.weights and set(config.data.weights) != named:
            raise UserError(
                f"{source}: key 'data.weights' names {sorted(config.data.weights)}, the stores hold {sorted(named)}"
            )
        # The model starts from its own seed: equal on every machine, whatever ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.pae.seed)
            self.model = NoiseModel(self.settings).to(self.precision.device)
        self._pairs: WhitenedPairs | None = None
        self._commit = self._first_commit()

    def _first_commit(self) -> str:
        """The code that began this training: a later rerun, which only replays, must not claim the weights."""
        record = str(self.output / "provenance.json")
        if exists(record) and (found := read_json(record)).get("identity") == self.identity:
            return str(found["commit"])
        write_json(record, {"identity": self.identity, "commit": commit()})
        return commit()

    @property
    def identity(self) -> str:
        """Digest of everything that decides the weights: configuration and data."""
        content = self.config.model_dump(mode="json")
        content["data"].pop("stores")  # where the data lies does not matter, what it is does
        content.pop("model")  # stands resolved below
        return content_key(
            {
                "config": content,
                "model": self.settings.model_dump(mode="json", exclude=set(GENERATION_ONLY)),
                "data": [s.digest for s in self.stores],
            }
        )

    def pairs(self, progress: Callable[[int, int], None] = lambda done, total: None) -> WhitenedPairs:
        """All training pairs, whitened; made once."""
        if self._pairs is None:
            total = sum(s.table.column("split").to_pylist().count(self.config.data.split) for s in self.stores)
            self._pairs = WhitenedPairs(
                self._read(), self.settings.whitening, self.config.data, lambda done: progress(done, total)
            )
        return self._pairs

    def _read(self) -> Iterator[TrainingPair]:
        for store in self.stores:
            table = store.table
            for row in table.select(["patch", "dataset", "split", "full_scale"]).to_pylist():
                if row["split"] == self.config.data.split:
                    clean, noisy = (_unit(x, row["full_scale"]) for x in store.read(row["patch"]))
                    yield TrainingPair(noisy, clean, row["dataset"])

    def train_autoencoder(
        self, *, max_minutes: float | None = None, report: Callable[[TrainingProgress], None] = lambda p: None
    ) -> Outcome:
        """Stage 1, and the latent statistics it leaves for stage 2."""
        objective = AutoencoderObjective(self.model, self.pairs(), self.config.pae, self.precision)
        outcome = run_stage(
            objective,
            self.config.pae,
            self.output / "pae",
            identity=self.identity,
            max_minutes=max_minutes,
            report=report,
        )
        if outcome.finished:
            measure_latent(self.model, self.pairs(), self.config.pae, self.precision)
        return outcome

    def train_transformer(
        self, *, max_minutes: float | None = None, report: Callable[[TrainingProgress], None] = lambda p: None
    ) -> Outcome:
        """Stage 2; call after a finished stage 1 of the same object (which a resume replays in seconds)."""
        objective = TransformerObjective(self.model, self.pairs(), self.config.pdit, self.precision)
        return run_stage(
            objective,
            self.config.pdit,
            self.output / "pdit",
            identity=self.identity,
            max_minutes=max_minutes,
            report=report,
        )

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


def _unit(patch: Pixels, full_scale: float) -> torch.Tensor:
    return torch.from_numpy(patch.astype(np.float32) / np.float32(full_scale))


def _card(settings: ModelConfig, training: dict[str, Any], evaluations: Sequence[Evaluation] = ()) -> str:
    hours = sum(training["seconds"].values()) / 3600
    data = "\n".join(
        f"- {d['patches']} patches (those of split `{training['config']['data']['split']}` were used), {d['licence']}, "
        f"digest `{d['digest'][:16]}`"
        for d in training["data"]
    )
    return _CARDS.get_template("model_card.md").render(
        settings=settings,
        training=training,
        hours=f"{hours:.2f}",
        data=data,
        figures=[(e.record, markdown_table(e.record["figures"], METRICS)) for e in evaluations],
    )


def write_card(bundle: Path, evaluations: Sequence[Evaluation]) -> None:
    """Put the figures into a published bundle's card (which its digest does not cover)."""
    config = bundle_config(bundle)
    settings = ModelConfig.model_validate(config["model"])
    write_bytes(str(bundle / CARD), _card(settings, config["training"], evaluations).encode())


def report_step(step: TrainingProgress) -> None:
    """Pass a training step on to whoever listens."""
    report(Progress(f"train {step.stage}", step.step, step.steps, "steps", f"loss {step.loss:.3g}"))


task_training_pairs = task(cache_policy=NO_CACHE, name="whiten_training_pairs")(TrainingRun.pairs)
task_train_autoencoder = task(cache_policy=NO_CACHE, name="train_autoencoder")(TrainingRun.train_autoencoder)
task_train_transformer = task(cache_policy=NO_CACHE, name="train_transformer")(TrainingRun.train_transformer)
task_publish_bundle = task(cache_policy=NO_CACHE, name="publish_bundle")(TrainingRun.publish)
task_write_card = task(cache_policy=NO_CACHE, name="write_model_card")(write_card)
