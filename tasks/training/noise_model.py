"""Training of a noise model from patch stores: prompt autoencoder (PAE), then prompt DiT (P-DiT), then a bundle.

If interrupted, rerun the same command to resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from pngmodel.bundle import save_bundle
from pngmodel.errors import UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import GENERATION_ONLY, PRESETS, ModelConfig
from pngmodel.training.loop import Machine, Outcome
from pngmodel.training.pae import AutoencoderObjective, measure_latent
from pngmodel.training.pdit import TransformerObjective
from pngmodel.training.settings import DataSettings, PDiTSettings, StageSettings
from tasks.reports.results import Evaluation
from tasks.runtime.configuration import validate
from tasks.runtime.provenance import content_key
from tasks.training.run import NON_IDENTITY_FIELDS, Report, TrainingFile, TrainingRun, card, silent
from tasks.training.samples import StoreSamples


class TrainingData(DataSettings):
    """Training data: patch stores, sampling and augmentation."""

    stores: list[str] = Field(min_length=1, description="Patch stores to train on: folders or URLs.")
    split: str = Field("train", description="Only pairs of this split.")


class TrainingConfig(TrainingFile):
    """Configuration of the training of a noise model: one file in configs/models/."""

    preset: str = Field(description=f"One of {', '.join(PRESETS)}.")
    model: dict[str, Any] = Field(default_factory=dict, description="Keys of the preset to change, e.g. {depth: 4}.")
    data: TrainingData = Field(description="Training data.")
    pae: StageSettings = Field(description="Stage 1: the prompt autoencoder.")
    pdit: PDiTSettings = Field(description="Stage 2: the P-DiT.")

    def model_settings(self, source: str) -> ModelConfig:
        """Return the validated preset with the overrides of this file."""
        if self.preset not in PRESETS:
            raise UserError(f"{source}: key 'preset' is {self.preset!r}; choose one of {', '.join(PRESETS)}")
        return validate(ModelConfig, PRESETS[self.preset].model_dump() | self.model, f"{source} (model)")

    def use_stores(self, urls: list[str]) -> None:
        """See :class:`TrainingFile`. Also drops the weights, which refer to the datasets of the configured stores."""
        self.data = self.data.model_copy(update={"stores": urls, "weights": {}})

    def resolved(self, source: str) -> dict[str, Any]:
        """See :class:`TrainingFile`."""
        settings = self.model_settings(source)
        with torch.device("meta"):
            model = NoiseModel(settings)
        parts = {
            "encoder": model.autoencoder.encoder,
            "decoder": model.autoencoder.decoder,
            "transformer": model.transformer,
        }
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        config = self.model_dump(mode="json") | {"model": settings.model_dump(mode="json")}
        return {"config": config, "parameters": sizes}

    def create_run(
        self, output: Path, *, device: str = "cpu", source: str = "config", machine: Machine | None = None
    ) -> NoiseModelTraining:
        """See :class:`TrainingFile`."""
        return NoiseModelTraining(self, output, device=device, source=source, machine=machine)


class NoiseModelTraining(TrainingRun):
    """Training of a noise model in two stages: autoencoder, then P-DiT."""

    stages = (AutoencoderObjective.name, TransformerObjective.name)

    def __init__(
        self,
        config: TrainingConfig,
        output: Path,
        *,
        device: str = "cpu",
        source: str = "config",
        machine: Machine | None = None,
    ) -> None:
        """See :class:`TrainingRun`.

        Raises:
            UserError: The configuration does not match the data, the model or the machine.
        """
        self.config, self.settings = config, config.model_settings(source)
        if config.pdit.train_prompts and self.settings.latent_init != "lossless":
            raise UserError(
                f"{source}: key 'pdit.train_prompts' is true, but model.latent_init is {self.settings.latent_init!r}; "
                "set pdit.train_prompts to false, or model.latent_init to 'lossless'"
            )
        super().__init__(config.data.stores, output, device=device, machine=machine)
        data = DataSettings(**config.data.model_dump(exclude={"stores", "split"}))
        samples = StoreSamples(self.stores, config.data.split, data, self.settings, seed=config.pdit.seed)
        other = config.pdit.reference_crop if config.pdit.reference == "same_image" else None
        self.pae_samples = samples.of(crop=config.pae.crop, reference_crop=None)
        self.pdit_samples = samples.of(crop=config.pdit.crop, reference_crop=other)
        # Seed the initial weights separately, so that they do not depend on previous random numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.pae.seed)
            self.model = NoiseModel(self.settings).to(self.precision.device)
        self._commit = self.first_commit()

    @property
    def identity(self) -> str:
        """See :class:`TrainingRun`."""
        content = self.config.model_dump(mode="json")
        content["data"].pop("stores")  # the digests below identify the data, independent of its location
        content.pop("model")  # included below with all defaults
        for stage in ("pae", "pdit"):
            for name in NON_IDENTITY_FIELDS:
                content[stage].pop(name)
        return content_key(
            {
                "config": content,
                "model": self.settings.model_dump(mode="json", exclude=set(GENERATION_ONLY)),
                "data": [s.digest for s in self.stores],
            }
        )

    def train_autoencoder(self, report: Report = silent) -> Outcome:
        """Train stage 1, then measure the latent statistics for stage 2."""
        settings = self.config.pae
        objective = AutoencoderObjective(self.model, settings, self.precision)
        outcome = self.stage(objective, self.pae_samples, settings, report)
        if outcome.finished:
            measure_latent(self.model, self.pae_samples, settings, self.precision)
        return outcome

    def train_transformer(self, report: Report = silent) -> Outcome:
        """Train stage 2. Call it after stage 1 of the same object has finished; a resumed stage 1 takes seconds."""
        objective = TransformerObjective(self.model, self.config.pdit, self.precision)
        return self.stage(objective, self.pdit_samples, self.config.pdit, report)

    def train(self, report: Report = silent) -> dict[str, Outcome]:
        """See :class:`TrainingRun`."""
        pae = self.train_autoencoder(report)
        return {"pae": pae} | ({"pdit": self.train_transformer(report)} if pae.finished else {})

    def publish(self, outcomes: Mapping[str, Outcome], command: str) -> dict[str, str]:
        """See :class:`TrainingRun`."""
        training = self.provenance(outcomes, self.config, command, self._commit)
        folder = self.output / "bundle"
        text = model_card(self.settings, training)
        return {
            "bundle": str(folder),
            "digest": save_bundle(self.model, folder, training=training, card=text),
        }


def model_card(settings: ModelConfig, training: Mapping[str, Any], evaluations: Sequence[Evaluation] = ()) -> str:
    """Render the card of a noise model bundle, with the metrics of ``evaluations``."""
    return card("model_card.md", training, evaluations, settings=settings)
