"""Base classes of trainings: configuration file, run in an output folder, provenance, bundle card."""

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
from tasks.runtime.devices import create_fabric
from tasks.runtime.parameters import Devices
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
"""Fields of a stage that do not affect the weights."""
Report = Callable[[TrainingProgress], None]

_COLOURS = 3


def silent(progress: TrainingProgress) -> None:
    """Discard progress."""


def training_facts(config: BaseModel, data: list[dict[str, Any]], precision: Precision, started: str) -> dict[str, Any]:
    """Return the training facts stored in every bundle; ``started`` is the commit that started the training."""
    return {
        "commit": started,
        "config": config.model_dump(mode="json"),
        "data": data,
        "device": device_name(str(precision.device)),
        "precision": str(precision.dtype).removeprefix("torch."),
        "packages": packages(),
    }


def starting_commit(output: Path, identity: str, *, chief: bool = True) -> str:
    """Return the commit that started the training in a folder, which a rerun of a finished training must not replace.

    Args:
        output: Folder of the training.
        identity: Digest of configuration and data.
        chief: Whether this process has rank 0 and writes the record.
    """
    record = str(output / "provenance.json")
    if exists(record) and (found := read_json(record)).get("identity") == identity:
        return str(found["commit"])
    # The folder has checkpoints of another training: do not write, because the training will be refused.
    started = any(output.glob("**/checkpoints/step-*"))
    if chief and not started:
        write_json(record, {"identity": identity, "commit": commit()})
    return commit()


class TrainingFile(BaseModel, ABC):
    """Base class of training configurations: one file in configs/models/."""

    model_config = ConfigDict(extra="forbid")

    @abstractmethod
    def use_stores(self, urls: list[str]) -> None:
        """Replace the patch stores of the file."""

    @abstractmethod
    def resolved(self, source: str) -> dict[str, Any]:
        """Return the configuration with all defaults, and the number of parameters of each part of the model."""

    @abstractmethod
    def create_run(
        self, output: Path, *, device: str = "cpu", source: str = "config", machine: Machine | None = None
    ) -> TrainingRun:
        """Create the training in an output folder, new or resumed, without training yet.

        Args:
            output: Local folder.
            device: Device if ``machine`` is not given.
            source: Path of the configuration file, named in errors.
            machine: Processes and devices; default one process on ``device``.
        """


class TrainingRun(ABC):
    """A training in one output folder: data, networks and stages."""

    stages: tuple[str, ...]
    """Names of the stages in order; each has a subfolder of the output folder."""

    def __init__(
        self, urls: Sequence[str], output: Path, *, device: str = "cpu", machine: Machine | None = None
    ) -> None:
        """Open the stores; writes nothing.

        Args:
            urls: Patch stores.
            output: Local folder.
            device: Device if ``machine`` is not given.
            machine: Processes and devices; default one process on ``device``.

        Raises:
            UserError: The stores are not suitable for training, or the folder is not local.
        """
        if ":/" in str(output):
            raise UserError(
                f"{output}: training requires a local output folder; copy the finished bundle to object storage"
            )
        self.output = output
        self.machine = machine or Machine(create_fabric(Devices(device=device)))
        self.precision = Precision.best(self.machine.fabric.device)
        self.stores = [PatchStore.open(url) for url in urls]
        for store in self.stores:
            store.require(*ARRAYS)
            if store.layout.channels != _COLOURS:
                raise UserError(
                    f"{store.url}: patches have {store.layout.channels} channels; training requires RGB patches "
                    f"({_COLOURS} channels)"
                )

    @property
    @abstractmethod
    def identity(self) -> str:
        """Digest of everything that affects the weights: configuration and data."""

    @abstractmethod
    def train(self, report: Report = silent) -> dict[str, Outcome]:
        """Train the stages until they are finished or the time limit is reached.

        Returns:
            Outcomes by stage; only the last one may be unfinished.
        """

    @abstractmethod
    def publish(self, outcomes: Mapping[str, Outcome], command: str) -> dict[str, str]:
        """Write the bundle to ``output/bundle``; return its path as ``bundle`` and its ``digest``."""

    def finished(self, outcomes: Mapping[str, Outcome]) -> bool:
        """Return whether all stages are finished."""
        return all(stage in outcomes and outcomes[stage].finished for stage in self.stages)

    def first_commit(self) -> str:
        """See :func:`starting_commit`."""
        return starting_commit(self.output, self.identity, chief=self.machine.fabric.global_rank == 0)

    def stage(
        self, objective: Objective[AnyBatch], samples: Samples[AnyBatch], settings: StageSettings, report: Report
    ) -> Outcome:
        """Train or resume one stage."""
        folder = self.output / objective.name
        return run_stage(
            objective, samples, settings, folder, identity=self.identity, machine=self.machine, report=report
        )

    def provenance(
        self, outcomes: Mapping[str, Outcome], config: BaseModel, command: str, started: str
    ) -> dict[str, Any]:
        """Return the training facts stored in the bundle."""
        data = [{"digest": s.digest, "licence": s.licence, "patches": len(s)} for s in self.stores]
        return training_facts(config, data, self.precision, started) | {
            "command": command,
            "seconds": {stage: round(outcome.seconds) for stage, outcome in outcomes.items()},
            "steps": {stage: outcome.step for stage, outcome in outcomes.items()},
        }


def card(template: str, training: Mapping[str, Any], evaluations: Sequence[Evaluation], **facts: Any) -> str:
    """Render the card of a bundle from a template: provenance of the weights, metrics of the model and baselines."""
    data = "\n".join(
        f"- {d['patches']} patches (split {code(training['config']['data']['split'])} used), "
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
