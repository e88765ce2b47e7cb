"""Training of a baseline from patch stores, with the same loop as the noise model. The result is a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.baselines.trained import TRAINED, TrainedBaseline, save_baseline
from pngmodel.errors import UserError
from pngmodel.training.loop import Machine, Outcome
from pngmodel.training.samples import Samples
from pngmodel.training.settings import StageSettings
from tasks.reports.results import Evaluation
from tasks.runtime.configuration import validate
from tasks.runtime.provenance import content_key
from tasks.training.pair_samples import LabelledSamples, PairSamples, camera_settings
from tasks.training.pair_sources import RealPairs
from tasks.training.run import NON_IDENTITY_FIELDS, Report, TrainingFile, TrainingRun, card, silent

_UNKNOWN_SETTING = "unknown"  # the only class if the data have no camera and ISO


class BaselineData(BaseModel):
    """Training data of a baseline. Stores are sampled in proportion to their size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: list[str] = Field(min_length=1, description="Patch stores to train on: folders or URLs.")
    split: str = Field("train", description="Only pairs of this split.")
    flips: bool = Field(True, description="Flip and rotate crops by right angles at random.")


class BaselineTrainingConfig(TrainingFile):
    """Configuration of the training of a baseline: one file in configs/models/."""

    baseline: str = Field(description=f"One of {', '.join(TRAINED)}.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the baseline to change, e.g. {steps: 8}."
    )
    data: BaselineData = Field(description="Training data.")
    train: StageSettings = Field(description="Settings of the single training stage.")

    def trained_baseline(self, source: str) -> TrainedBaseline:
        """Return the classes and settings that belong to the name of the baseline."""
        if self.baseline not in TRAINED:
            raise UserError(f"{source}: key 'baseline' is {self.baseline!r}; choose one of {', '.join(TRAINED)}")
        return TRAINED[self.baseline]

    def network_settings(self, source: str) -> BaseModel:
        """Validate the settings of the baseline. Cameras and ISO values default to those of the data."""
        entry, content = self.trained_baseline(source), self.settings
        if entry.labelled and "settings" not in content:
            content = content | {"settings": camera_settings(self.pairs()) or [_UNKNOWN_SETTING]}
        return validate(entry.settings, content, f"{source} (settings)")

    def pairs(self) -> list[RealPairs]:
        """Return the real pairs to train on."""
        return [RealPairs(url, self.data.split) for url in self.data.stores]

    def use_stores(self, urls: list[str]) -> None:
        """See :class:`TrainingFile`."""
        self.data = self.data.model_copy(update={"stores": urls})

    def resolved(self, source: str) -> dict[str, Any]:
        """See :class:`TrainingFile`; ``training`` counts networks that only exist during training, e.g. critics."""
        entry, settings = self.trained_baseline(source), self.network_settings(source)
        network = entry.build(settings)
        parameters = sum(p.numel() for p in network.parameters())
        objective: Any = entry.objective(network, self.train)
        training_only = sum(p.numel() for p in objective.parameters()) - parameters
        return {
            "config": self.model_dump(mode="json") | {"settings": settings.model_dump(mode="json")},
            "parameters": {"network": parameters, "training": training_only},
            "simplifications": list(entry.simplifications),
        }

    def create_run(
        self, output: Path, *, device: str = "cpu", source: str = "config", machine: Machine | None = None
    ) -> BaselineTraining:
        """See :class:`TrainingFile`."""
        return BaselineTraining(self, output, device=device, source=source, machine=machine)


class BaselineTraining(TrainingRun):
    """Training of a baseline in one stage."""

    def __init__(
        self,
        config: BaselineTrainingConfig,
        output: Path,
        *,
        device: str = "cpu",
        source: str = "config",
        machine: Machine | None = None,
    ) -> None:
        """See :class:`TrainingRun`.

        Raises:
            UserError: The configuration does not match the data, the baseline or the machine.
        """
        entry, self.config = config.trained_baseline(source), config
        self.settings = config.network_settings(source)
        super().__init__(config.data.stores, output, device=device, machine=machine)
        crops: dict[str, Any] = {"crop": config.train.crop, "flips": config.data.flips, "seed": config.train.seed}
        self.samples: Samples[Any] = PairSamples(config.pairs(), [], share=0.0, **crops)
        if entry.labelled:
            self.samples = LabelledSamples(config.pairs(), self.settings.model_dump()["settings"], **crops)
        # Seed the initial weights separately, so that they do not depend on previous random numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.network = entry.build(self.settings)
            self.objective = entry.objective(self.network, config.train)
        self.stages = (self.objective.name,)
        self._commit = self.first_commit()

    @property
    def identity(self) -> str:
        """See :class:`TrainingRun`."""
        content = self.config.model_dump(mode="json")
        content["data"].pop("stores")  # the digests below identify the data, independent of its location
        for name in NON_IDENTITY_FIELDS:
            content["train"].pop(name)
        content["settings"] = self.settings.model_dump(mode="json")
        return content_key({"config": content, "data": [s.digest for s in self.stores]})

    def train(self, report: Report = silent) -> dict[str, Outcome]:
        """See :class:`TrainingRun`."""
        return {self.objective.name: self.stage(self.objective, self.samples, self.config.train, report)}

    def publish(self, outcomes: Mapping[str, Outcome], command: str) -> dict[str, str]:
        """See :class:`TrainingRun`."""
        training = self.provenance(outcomes, self.config, command, self._commit)
        # The loop computes in the precision of the parameters, which is float32 for baselines on every device.
        training["precision"] = "float32"
        folder = self.output / "bundle"
        model = {"baseline": self.config.baseline, "settings": self.settings.model_dump(mode="json")}
        model["simplifications"] = TRAINED[self.config.baseline].simplifications
        text = baseline_card(model, training)
        digest = save_baseline(self.config.baseline, self.network, self.settings, folder, training=training, card=text)
        return {"bundle": str(folder), "digest": digest}


def baseline_card(model: Mapping[str, Any], training: Mapping[str, Any], evaluations: Sequence[Evaluation] = ()) -> str:
    """Render the card of a baseline bundle.

    Args:
        model: Key ``model`` of its config.json.
        training: Key ``training`` of its config.json.
        evaluations: Evaluations whose metrics are shown.
    """
    return card("baseline_card.md", training, evaluations, model=model)
