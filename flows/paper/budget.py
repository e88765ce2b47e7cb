"""How much of each table is made: smoke sees that it runs, small is an afternoon on a CPU, full needs GPUs."""

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
    """The networks that tell cameras."""

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
    """``smoke``, ``small``, ``full``, or a YAML file.

    Raises:
        UserError: there is none, or it is not valid.
    """
    location = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not location.exists():
        there = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
        raise UserError(f"budget {name!r} does not exist; choose one of {there}, or give a YAML file")
    found = load_yaml(location, Budget)
    ablation = found.ablation.model_copy(update={"config": _file(found.ablation.config, location)})
    budget = found.model_copy(update={"denoiser": _file(found.denoiser, location), "ablation": ablation})
    if max(budget.scales) > budget.scale:
        raise UserError(f"{location}: key 'scales' holds {max(budget.scales)}, more than key 'scale', {budget.scale}")
    return budget


def _file(name: str, budget: Path) -> str:
    """A configuration that a budget names: from here, or from the checkout that the budget is in."""
    locations = [Path(name), _FOLDER.parents[1] / name]
    found = next((location for location in locations if location.exists()), None)
    if found is None:
        raise UserError(f"{budget}: names {name}, which does not exist; give a path from here or from the checkout")
    return str(found)


def patch_side(store: str) -> int:
    """Side of the patches of a store: what its clean images are cropped to."""
    layout = PatchStore.open(store).layout
    return min(layout.height, layout.width)


def shared_scenes(store: str, tests: Sequence[TestSet]) -> list[str]:
    """Sentences that name scenes of which a test set has parts and the training split of ``store`` others."""
    trained = {(r.dataset, r.scene) for r in open_pairs(store).references if r.split == "train"}
    told = []
    for test in tests:
        source, picks = select_pairs(test)
        seen = [source.references[k] for k in picks]
        shared = sorted({r.scene for r in seen if (r.dataset, r.scene) in trained})
        if shared:
            told.append(
                f"{test.name}: the training split has other parts of the scenes {', '.join(shared)}, so this is no "
                "test on unseen scenes."
            )
    return told


def write_variants(budget: AblationBudget, folder: str) -> dict[str, str]:
    """A training configuration per variant, written where its model will be; returns their files by variant."""
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
