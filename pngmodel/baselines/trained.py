"""Baselines that are trained: by name, what each is built, trained, drawn from and stored with.

>>> from pngmodel.baselines.trained import load_baseline
>>> noisy = load_baseline("runs/flow_srgb/bundle").generate(clean, reference=(real_noisy, real_clean), seed=1)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn

from pngmodel.baselines.c2n import C2N, C2NConfig, C2NGenerator, C2NObjective
from pngmodel.baselines.flow_srgb import FlowSRGB, FlowSRGBConfig, FlowSRGBGenerator, FlowSRGBObjective
from pngmodel.baselines.naflow import NAFlow, NAFlowConfig, NAFlowGenerator, NAFlowObjective
from pngmodel.baselines.neca_w import NeCAW, NeCAWConfig, NeCAWGenerator, NeCAWObjective
from pngmodel.bundle import read_bundle, write_bundle
from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator
from pngmodel.training.objective import Objective
from pngmodel.training.settings import StageSettings

FORMAT = "pngnoise-baseline"


@dataclass(frozen=True)
class TrainedBaseline:
    """What belongs to one name. ``Any`` stands for the baseline's own settings and network."""

    settings: type[BaseModel]
    """Sizes; the key ``settings`` of a configuration and of a bundle."""
    build: Callable[[Any], nn.Module]
    """The network of settings, which is what a bundle holds."""
    objective: Callable[[Any, StageSettings], Objective[Any]]
    """What trains that network; may hold further networks, which are not kept."""
    generator: Callable[..., NoisyImageGenerator]
    """``generator(network, device=...)``."""
    simplifications: tuple[str, ...]
    """How it differs from the paper; a sentence each."""
    labelled: bool = False
    """Trained on batches that say each pair's camera and ISO; its settings hold their names under ``settings``."""


TRAINED: dict[str, TrainedBaseline] = {
    "c2n": TrainedBaseline(C2NConfig, C2N, C2NObjective, C2NGenerator, C2NGenerator.simplifications),
    "flow_srgb": TrainedBaseline(
        FlowSRGBConfig, FlowSRGB, FlowSRGBObjective, FlowSRGBGenerator, FlowSRGBGenerator.simplifications
    ),
    "naflow": TrainedBaseline(
        NAFlowConfig, NAFlow, NAFlowObjective, NAFlowGenerator, NAFlowGenerator.simplifications, labelled=True
    ),
    "neca_w": TrainedBaseline(NeCAWConfig, NeCAW, NeCAWObjective, NeCAWGenerator, NeCAWGenerator.simplifications),
}


def trained(name: object) -> TrainedBaseline:
    """The trained baseline called ``name``.

    Raises:
        UserError: there is none of that name; the message lists them.
    """
    if name not in TRAINED:
        raise UserError(f"baseline {name!r} cannot be trained; choose one of {', '.join(TRAINED)}")
    return TRAINED[str(name)]


def save_baseline(
    name: str, network: nn.Module, settings: BaseModel, folder: Path, *, training: dict[str, Any], card: str
) -> str:
    """Write a trained baseline as a bundle; returns its digest."""
    model = {
        "baseline": name,
        "settings": settings.model_dump(mode="json"),
        "simplifications": list(trained(name).simplifications),
    }
    return write_bundle(network, folder, kind=FORMAT, model=model, training=training, card=card)


def load_baseline(path_or_url: str | Path, *, device: str = "cpu") -> NoisyImageGenerator:
    """The generator of a bundle that :func:`save_baseline` wrote.

    Raises:
        UserError: not such a bundle, or of a baseline that this release does not know. IntegrityError: damaged.
    """
    found: list[TrainedBaseline] = []

    def build(model: Any) -> nn.Module:
        chosen = trained(model.get("baseline"))
        found.append(chosen)
        return chosen.build(chosen.settings.model_validate(model.get("settings")))

    network, _ = read_bundle(path_or_url, FORMAT, build)
    return found[0].generator(network, device=device)
