"""What every training in an output folder shares: stores, machine, identity, the commit that began it, a bundle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from pngmodel.errors import UserError
from pngmodel.metrics.protocols import METRICS
from pngmodel.network.model import Precision
from pngmodel.training.loop import Machine, Outcome, run_stage
from pngmodel.training.loop import Progress as TrainingProgress
from pngmodel.training.objective import Objective
from pngmodel.training.samples import AnyBatch, Samples
from pngmodel.training.settings import StageSettings
from tasks.reports.markdown import code, plain
from tasks.reports.pages import TEXTS
from tasks.reports.results import Evaluation
from tasks.reports.tables import markdown_table
from tasks.runtime.devices import Devices, create_fabric
from tasks.runtime.provenance import commit, device_name, packages
from tasks.stores.io.filesystem import exists, read_json, write_json
from tasks.stores.layout import ARRAYS
from tasks.stores.patch_store import PatchStore

NON_IDENTITY_FIELDS = (
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "pictures_every",
    "gradient_accumulation_steps",
)
"""Fields of a stage that do not decide the weights."""
Report = Callable[[TrainingProgress], None]

_COLOURS = 3


def silent(progress: TrainingProgress) -> None:
    """Report nothing."""


def training_facts(config: BaseModel, data: list[dict[str, Any]], precision: Precision, started: str) -> dict[str, Any]:
    """What every bundle keeps of its training; ``started``: the commit of the code that began it."""
    return {
        "commit": started,
        "config": config.model_dump(mode="json"),
        "data": data,
        "device": device_name(str(precision.device)),
        "precision": str(precision.dtype).removeprefix("torch."),
        "packages": packages(),
    }


def started_at(output: Path, identity: str, *, chief: bool = True) -> str:
    """The commit of the code that began the training in a folder: a later rerun, which only replays or finishes it,
    must not claim the weights. ``chief``: whether this process is the one that keeps the record of it."""
    record = str(output / "provenance.json")
    if exists(record) and (found := read_json(record)).get("identity") == identity:
        return str(found["commit"])
    # Another training's checkpoints: it will be refused, and stays as it is.
    started = any(output.glob("**/checkpoints/step-*"))
    if chief and not started:
        write_json(record, {"identity": identity, "commit": commit()})
    return commit()


class TrainingFile(BaseModel, ABC):
    """One file of configs/models/, whatever it trains."""

    model_config = ConfigDict(extra="forbid")

    @abstractmethod
    def use_stores(self, urls: list[str]) -> None:
        """Train on these patch stores instead of the file's."""

    @abstractmethod
    def resolved(self, source: str) -> dict[str, Any]:
        """The configuration with every default in place, and how many parameters each part has."""

    @abstractmethod
    def begin(
        self, output: Path, *, device: str = "cpu", source: str = "config", machine: Machine | None = None
    ) -> TrainingRun:
        """The training in a folder, begun or taken up; nothing is trained yet."""


class TrainingRun(ABC):
    """A training in one output folder: its data, its networks, its stages."""

    stages: tuple[str, ...]
    """Names of the stages in order; each is a folder below the output."""

    def __init__(
        self, urls: Sequence[str], output: Path, *, device: str = "cpu", machine: Machine | None = None
    ) -> None:
        """``machine`` is where it runs, default one process on ``device``. Writes nothing.

        Raises:
            UserError: the stores cannot be trained on, or the folder is none of this machine.
        """
        if ":/" in str(output):
            raise UserError(f"{output}: training writes to a local folder; copy the finished bundle to object storage")
        self.output = output
        self.machine = machine or Machine(create_fabric(Devices(device=device)))
        self.precision = Precision.best(self.machine.fabric.device)
        self.stores = [PatchStore.open(url) for url in urls]
        for store in self.stores:
            store.require(*ARRAYS)
            if store.layout.channels != _COLOURS:
                raise UserError(
                    f"{store.url}: patches have {store.layout.channels} channels; the model learns from RGB"
                )

    @property
    @abstractmethod
    def identity(self) -> str:
        """Digest of everything that decides the weights: configuration and data."""

    @abstractmethod
    def train(self, report: Report = silent) -> dict[str, Outcome]:
        """The stages as far as time allows, by name; one that did not end is the last."""

    @abstractmethod
    def publish(self, outcomes: Mapping[str, Outcome], command: str) -> dict[str, str]:
        """Write the bundle to ``output/bundle``; returns its place and digest."""

    def finished(self, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether every stage was done to its end."""
        return all(stage in outcomes and outcomes[stage].finished for stage in self.stages)

    def first_commit(self) -> str:
        """See :func:`started_at`."""
        return started_at(self.output, self.identity, chief=self.machine.fabric.global_rank == 0)

    def stage(
        self, objective: Objective[AnyBatch], samples: Samples[AnyBatch], settings: StageSettings, report: Report
    ) -> Outcome:
        """Train one stage below the output, or take it up."""
        folder = self.output / objective.name
        return run_stage(
            objective, samples, settings, folder, identity=self.identity, machine=self.machine, report=report
        )

    def provenance(
        self, outcomes: Mapping[str, Outcome], config: BaseModel, command: str, started: str
    ) -> dict[str, Any]:
        """What a bundle keeps of its training."""
        data = [{"digest": s.digest, "licence": s.licence, "patches": len(s)} for s in self.stores]
        return training_facts(config, data, self.precision, started) | {
            "command": command,
            "seconds": {stage: round(outcome.seconds) for stage, outcome in outcomes.items()},
            "steps": {stage: outcome.step for stage, outcome in outcomes.items()},
        }


def card(template: str, training: Mapping[str, Any], evaluations: Sequence[Evaluation], **facts: Any) -> str:
    """A bundle's card from a template: where the weights came from, and figures beside the baselines'."""
    data = "\n".join(
        f"- {d['patches']} patches (those of split {code(training['config']['data']['split'])} were used), "
        f"{plain(d['licence'])}, "
        f"digest `{d['digest'][:16]}`"
        for d in training["data"]
    )
    return TEXTS.get_template(template).render(
        training=training,
        hours=f"{sum(training['seconds'].values()) / 3600:.2f}",
        data=Markup(data),
        metrics=[(e.record, Markup(markdown_table(e.record["metrics"], METRICS))) for e in evaluations],
        **facts,
    )
