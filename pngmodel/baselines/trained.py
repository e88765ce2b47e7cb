"""Trained baselines by name: settings, network, objective and generator of each.

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
    """Entry of a trained baseline. ``Any`` stands for its own settings and network."""

    settings: type[BaseModel]
    """Model of the key ``settings`` in configurations and bundles."""
    build: Callable[[Any], nn.Module]
    """Builds the network, which is stored in bundles, from its settings."""
    objective: Callable[[Any, StageSettings], Objective[Any]]
    """Creates the training objective; may have more networks, which are not stored."""
    generator: Callable[..., NoisyImageGenerator]
    """Creates the generator: ``generator(network, device=...)``."""
    simplifications: tuple[str, ...]
    """Differences from the paper."""
    labelled: bool = False
    """Whether batches need camera settings; the names of the classes are in ``settings.settings``."""


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
    """Return the entry of the trained baseline ``name``.

    Raises:
        UserError: There is no such baseline; lists the names.
    """
    if name not in TRAINED:
        raise UserError(f"baseline {name!r} cannot be trained; choose one of {', '.join(TRAINED)}")
    return TRAINED[str(name)]


def save_baseline(
    name: str, network: nn.Module, settings: BaseModel, folder: Path, *, training: dict[str, Any], card: str
) -> str:
    """Write a trained baseline as a bundle; return its digest."""
    model = {
        "baseline": name,
        "settings": settings.model_dump(mode="json"),
        "simplifications": list(trained(name).simplifications),
    }
    return write_bundle(network, folder, kind=FORMAT, model=model, training=training, card=card)


def load_baseline(path_or_url: str | Path, *, device: str = "cpu") -> NoisyImageGenerator:
    """Load the generator of a bundle from :func:`save_baseline`.

    Raises:
        UserError: This is not the bundle of a baseline, or the baseline is unknown.
        IntegrityError: The bundle is damaged.
    """
    found: list[TrainedBaseline] = []

    def build(model: Any) -> nn.Module:
        entry = trained(model.get("baseline"))
        found.append(entry)
        return entry.build(entry.settings.model_validate(model.get("settings")))

    network, _ = read_bundle(path_or_url, FORMAT, build)
    return found[0].generator(network, device=device)
