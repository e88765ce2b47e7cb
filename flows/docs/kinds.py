"""The kinds of YAML files: one folder of configs/, one page of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.docs.tables import FreeKeys, Model, Root
from flows.docs.words import default_words, row, summary
from flows.paper.budget import AblationBudget, Budget
from pngmodel.baselines.trained import TRAINED
from pngmodel.denoisers import DENOISERS, DenoiserConfig
from pngmodel.network.presets import PRESETS, ModelConfig
from tasks.corpus.gate import GateRules
from tasks.datasets.adapters.folders import FolderRules
from tasks.denoising.training import DenoiserTrainingConfig
from tasks.models.promotion import PromotionRules
from tasks.runtime.parameters import ClusterConfig
from tasks.training.baseline import BaselineTrainingConfig
from tasks.training.noise_model import TrainingConfig


@dataclass(frozen=True)
class Kind:
    """One folder of configs/."""

    folder: str
    intro: str
    """Who reads such a file, and what has to be known beside its keys."""
    files: dict[str, Model]
    """What a file of the folder is, by the title of its table."""

    @property
    def page(self) -> str:
        """Name of the page."""
        return f"{self.folder}.md"

    @property
    def roots(self) -> list[Root]:
        """The tables of the page."""
        return [Root(title, {"": model}, summary(model.__doc__)) for title, model in self.files.items()]


KINDS = (
    Kind(
        "clusters",
        "Where work is done: `--cluster FILE` of most commands, the parameter `cluster` of most flows. `inline` and "
        "`local` are known without a file. More in [corpora](../corpora.md#many-workers).",
        {"Cluster": ClusterConfig},
    ),
    Kind(
        "datasets",
        "How paired folders are read: `pngnoise ingest FOLDER --adapter FILE`. More in [datasets](../datasets.md).",
        {"Rules of a paired folder": FolderRules},
    ),
    Kind(
        "models",
        "What `pngnoise train FILE` trains: with the key `baseline` another noise generator, without it the noise "
        "model. `--dry-run` prints a file with every default in place. More in [training](../training.md).",
        {"Training of the noise model": TrainingConfig, "Training of a baseline": BaselineTrainingConfig},
    ),
    Kind(
        "corpora",
        "What a corpus has to pass before it is published: `pngnoise generate --gate FILE`. More in "
        "[corpora](../corpora.md#the-quality-gate).",
        {"Quality gate": GateRules},
    ),
    Kind(
        "denoisers",
        "What `pngnoise train-denoiser FILE` trains. More in [denoisers](../denoisers.md).",
        {"Training of a denoiser": DenoiserTrainingConfig},
    ),
    Kind(
        "gates",
        "What an evaluation has to show before a version becomes champion: `pngnoise registry promote --rules FILE`. "
        "More in [the registry's format](../formats/registry.md#the-gate).",
        {"Gate of a registry": PromotionRules},
    ),
    Kind(
        "paper",
        "How much of every table `pngnoise reproduce-paper --budget FILE` makes. `smoke`, `small` and `full` are known "
        "without a path.",
        {"Budget": Budget},
    ),
)

FREE_KEYS: FreeKeys = {
    (TrainingConfig, "model"): {"": ModelConfig},
    (BaselineTrainingConfig, "settings"): {f"`baseline: {name}`": TRAINED[name].settings for name in sorted(TRAINED)},
    (DenoiserConfig, "settings"): {f"`name: {name}`": DENOISERS[name][0] for name in sorted(DENOISERS)},
    (AblationBudget, "variants"): {"": ModelConfig},
}

_CLUSTER = "where the work is done"
SAID = {
    # Sources whose bytes are part of digests: a word more in them would make every corpus and record another one.
    "ModelConfig.sigma_min": "smallest std of the noise that the consistency model is trained at",
    "ModelConfig.sigma_max": "largest std of that noise, from which a draw starts",
    "NAFlowConfig.levels": "squeezes of the flow: inside it the side of an image is divided by 2 to this power",
    "CorpusParameters.cluster": _CLUSTER,
    "BankParameters.cluster": _CLUSTER,
    "C2stParameters.cluster": _CLUSTER,
    "MetadataParameters.cluster": _CLUSTER,
}
"""Meanings of keys that their models do not say."""


def _presets() -> str:
    """The presets beside each other, where one of them is not the default."""
    defaults = {name: None if f.is_required() else f.default for name, f in ModelConfig.model_fields.items()}
    names = [name for name in defaults if any(getattr(p, name) != defaults[name] for p in PRESETS.values())]
    rows = [row(f"`{n}`", *(default_words(getattr(p, n)) for p in PRESETS.values())) for n in names if n != "preset"]
    return "\n".join(
        [
            "A configuration starts from its `preset`: what that says takes the place of the defaults below.",
            "",
            row("key", *(f"`preset: {name}`" for name in PRESETS)),
            row(*["---"] * (len(PRESETS) + 1)),
            *rows,
        ]
    )


NOTES: dict[Model, str] = {
    ModelConfig: _presets(),
    TRAINED[
        "naflow"
    ].settings: "Where a configuration does not list `settings`, they are the cameras and ISO values of its stores.",
}
"""What has to be known beside the keys of a model."""


def first_sentence(file: Path) -> str:
    """What the comment at the top of a YAML file begins with."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).split(". ")[0].removesuffix(".").removesuffix(":")
