"""Train a baseline from patch stores, by the loop that trains the noise model; the result is a bundle."""

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
from tasks.training.labelled_samples import LabelledSamples, settings_of
from tasks.training.pair_samples import PairSamples
from tasks.training.pair_sources import RealPairs
from tasks.training.run import NON_IDENTITY_FIELDS, Report, TrainingFile, TrainingRun, card, silent

_ONE_SETTING = "unknown"  # of data that say no camera and ISO


class BaselineData(BaseModel):
    """Which real pairs a baseline is trained on; stores are drawn from by their size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: list[str] = Field(min_length=1, description="Patch stores to train on: folders or URLs.")
    split: str = Field("train", description="Only pairs of this split.")
    flips: bool = Field(True, description="Flip and rotate crops by right angles at random.")


class BaselineTrainingConfig(TrainingFile):
    """A file of configs/models/ that trains a baseline."""

    baseline: str = Field(description=f"One of {', '.join(TRAINED)}.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the baseline to change, e.g. {steps: 8}."
    )
    data: BaselineData = Field(description="Training data.")
    train: StageSettings = Field(description="Settings of the single training stage.")

    def chosen(self, source: str) -> TrainedBaseline:
        """What belongs to the baseline's name."""
        if self.baseline not in TRAINED:
            raise UserError(f"{source}: key 'baseline' is {self.baseline!r}; choose one of {', '.join(TRAINED)}")
        return TRAINED[self.baseline]

    def network_settings(self, source: str) -> BaseModel:
        """The baseline's own settings, validated. Cameras and ISO values are the data's unless the file lists them."""
        chosen, content = self.chosen(source), self.settings
        if chosen.labelled and "settings" not in content:
            content = content | {"settings": settings_of(self.pairs()) or [_ONE_SETTING]}
        return validate(chosen.settings, content, f"{source} (settings)")

    def pairs(self) -> list[RealPairs]:
        """The real pairs to train on."""
        return [RealPairs(url, self.data.split) for url in self.data.stores]

    def use_stores(self, urls: list[str]) -> None:
        """See :class:`TrainingFile`."""
        self.data = self.data.model_copy(update={"stores": urls})

    def resolved(self, source: str) -> dict[str, Any]:
        """See :class:`TrainingFile`; ``training`` holds networks that are not kept."""
        chosen, settings = self.chosen(source), self.network_settings(source)
        network = chosen.build(settings)
        kept = sum(p.numel() for p in network.parameters())
        objective: Any = chosen.objective(network, self.train)
        beside = sum(p.numel() for p in objective.parameters()) - kept
        return {
            "config": self.model_dump(mode="json") | {"settings": settings.model_dump(mode="json")},
            "parameters": {"network": kept, "training": beside},
            "simplifications": list(chosen.simplifications),
        }

    def begin(
        self, output: Path, *, device: str = "cpu", source: str = "config", machine: Machine | None = None
    ) -> BaselineTraining:
        """See :class:`TrainingFile`."""
        return BaselineTraining(self, output, device=device, source=source, machine=machine)


class BaselineTraining(TrainingRun):
    """The training of a baseline: one stage."""

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
            UserError: the configuration does not fit the data, the baseline or the machine.
        """
        chosen, self.config = config.chosen(source), config
        self.settings = config.network_settings(source)
        super().__init__(config.data.stores, output, device=device, machine=machine)
        crops: dict[str, Any] = {"crop": config.train.crop, "flips": config.data.flips, "seed": config.train.seed}
        self.samples: Samples[Any] = PairSamples(config.pairs(), [], share=0.0, **crops)
        if chosen.labelled:
            self.samples = LabelledSamples(config.pairs(), self.settings.model_dump()["settings"], **crops)
        # The networks start from their own seed: equal on every machine, whatever ran before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            self.network = chosen.build(self.settings)
            self.objective = chosen.objective(self.network, config.train)
        self.stages = (self.objective.name,)
        self._commit = self.first_commit()

    @property
    def identity(self) -> str:
        """See :class:`TrainingRun`."""
        content = self.config.model_dump(mode="json")
        content["data"].pop("stores")  # where the data lies does not matter, what it is does
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
        # The loop computes in the parameters' own precision, which for baselines is float32 on every device.
        training["precision"] = "float32"
        folder = self.output / "bundle"
        model = {"baseline": self.config.baseline, "settings": self.settings.model_dump(mode="json")}
        model["simplifications"] = TRAINED[self.config.baseline].simplifications
        text = baseline_card(model, training)
        digest = save_baseline(self.config.baseline, self.network, self.settings, folder, training=training, card=text)
        return {"bundle": str(folder), "digest": digest}


def baseline_card(model: Mapping[str, Any], training: Mapping[str, Any], evaluations: Sequence[Evaluation] = ()) -> str:
    """The card of a baseline's bundle, from the ``model`` of its config.json."""
    return card("baseline_card.md", training, evaluations, model=model)
