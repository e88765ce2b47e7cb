"""Budgets for the tables: `smoke` only checks that they run, `small` takes an afternoon on a CPU, `full` needs GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import UserError
from tasks.datasets.reference_pairs import open_pairs
from tasks.denoising.measurement import select_pairs
from tasks.denoising.parameters import TestSet
from tasks.runtime.configuration import load_yaml, read_yaml
from tasks.stores.patch_store import PatchStore

_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper"


class AblationBudget(BaseModel):
    """The noise models of the ablation."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field(description="Training configuration that the variants start from.")
    pae_steps: int = Field(ge=1, description="Training steps of the autoencoder of each variant.")
    pdit_steps: int = Field(ge=1, description="Training steps of the P-DiT of each variant.")
    variants: dict[str, dict[str, Any]] = Field(description="Keys of `model` to change, by name of the variant.")
    limit: int | None = Field(None, ge=1, description="Maximum number of pairs to evaluate on; default: all.")


class C2stBudget(BaseModel):
    """The classifiers of the two-sample test."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1, description="Training steps per classifier.")
    seeds: int = Field(ge=1, description="Number of classifiers per generator.")
    averages: list[int] = Field(
        [1], description="Average over blocks of this many pixels squared before classifying; each 1, 2 or 4."
    )
    limit: int | None = Field(None, ge=2, description="Maximum number of pairs, evenly spread; default: all.")


class MetadataBudget(BaseModel):
    """The networks that classify cameras."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1, description="Training steps per network.")
    seeds: int = Field(ge=1, description="Number of networks of each kind.")
    limit: int | None = Field(None, ge=4, description="Maximum number of pairs, evenly spread; default: all.")


class Budget(BaseModel):
    """One file of configs/paper/."""

    model_config = ConfigDict(extra="forbid")

    denoiser: str = Field(description="Training configuration of the denoisers: a file of configs/denoisers/.")
    denoiser_steps: int | None = Field(None, ge=1, description="Training steps; default: those of the configuration.")
    seeds: list[int] = Field(min_length=1, description="Seeds; one denoiser is trained per seed and arm.")
    scale: int = Field(ge=1, description="Samples per clean image of the corpora that denoisers are compared on.")
    scales: list[int] = Field(
        min_length=1, description="Samples per clean image in the table of scales; each at most `scale`."
    )
    limit: int | None = Field(
        None, ge=1, description="Maximum number of pairs per test set for denoisers; default: all."
    )
    noise_limit: int | None = Field(
        None, ge=1, description="Maximum number of pairs per test set for noise metrics; default: all."
    )
    c2st: C2stBudget = Field(description="Budget of the classifier two-sample test.")
    ablation: AblationBudget = Field(description="Budget of the ablation.")
    metadata: MetadataBudget = Field(description="Budget of the camera classifiers.")
    speed_repeats: int = Field(3, ge=1, description="Number of images per image size in the table of speeds.")


def load_budget(name: str) -> Budget:
    """Load the budget ``smoke``, ``small`` or ``full``, or a YAML file.

    Raises:
        UserError: The budget does not exist or is invalid.
    """
    location = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not location.exists():
        available = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
        raise UserError(f"budget {name!r} does not exist; choose one of {available}, or specify a YAML file")
    found = load_yaml(location, Budget)
    ablation = found.ablation.model_copy(update={"config": _file(found.ablation.config, location)})
    budget = found.model_copy(update={"denoiser": _file(found.denoiser, location), "ablation": ablation})
    if max(budget.scales) > budget.scale:
        raise UserError(
            f"{location}: key 'scales' contains {max(budget.scales)}, which is greater than key 'scale' "
            f"({budget.scale}); increase 'scale' or remove the value"
        )
    return budget


def _file(name: str, budget: Path) -> str:
    """Resolve a configuration in a budget, relative to the working directory or to the checkout."""
    locations = [Path(name), _FOLDER.parents[1] / name]
    found = next((location for location in locations if location.exists()), None)
    if found is None:
        raise UserError(
            f"{budget}: file {name} does not exist; specify a path relative to the current directory or the checkout"
        )
    return str(found)


def patch_side(store: str) -> int:
    """Return the side length in pixels to which the clean images of a store are cropped."""
    layout = PatchStore.open(store).layout
    return min(layout.height, layout.width)


def shared_scenes(store: str, tests: Sequence[TestSet]) -> list[str]:
    """Return a note for each test set that shares scenes with the training split of ``store``."""
    trained = {(r.dataset, r.scene) for r in open_pairs(store).references if r.split == "train"}
    notes = []
    for test in tests:
        source, picks = select_pairs(test)
        selected = [source.references[k] for k in picks]
        shared = sorted({r.scene for r in selected if (r.dataset, r.scene) in trained})
        if shared:
            notes.append(
                f"{test.name}: the training split contains other parts of the scenes {', '.join(shared)}, so this "
                "does not test on unseen scenes."
            )
    return notes


def write_variants(budget: AblationBudget, folder: str) -> dict[str, str]:
    """Write a training configuration per variant next to the future model; returns variant -> file."""
    base = read_yaml(budget.config)
    Path(folder).mkdir(parents=True, exist_ok=True)
    locations = {}
    for name, changes in budget.variants.items():
        config = base | {"model": base.get("model", {}) | changes}
        for stage, steps in (("pae", budget.pae_steps), ("pdit", budget.pdit_steps)):
            config[stage] = base[stage] | {"steps": steps}
        location = Path(folder) / f"{name.replace(' ', '-').replace('+', '-')}.yaml"
        location.write_text(yaml.safe_dump(config, sort_keys=False))
        locations[name] = str(location)
    return locations
