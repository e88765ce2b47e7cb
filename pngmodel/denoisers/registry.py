"""Denoising networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from pngmodel.denoisers.dncnn import DnCNN, DnCNNConfig
from pngmodel.denoisers.nafnet import NAFNet, NAFNetConfig
from pngmodel.denoisers.restormer import Restormer, RestormerConfig
from pngmodel.errors import UserError

DENOISERS: dict[str, tuple[type[BaseModel], Callable[[Any], nn.Module]]] = {
    "dncnn": (DnCNNConfig, DnCNN),
    "nafnet": (NAFNetConfig, NAFNet),
    "restormer": (RestormerConfig, Restormer),
}
"""Settings and network by name. Networks map (B, C, H, W) in [0, 1] to the same shape; the sides of the input must be
multiples of their attribute ``multiple``."""


class DenoiserConfig(BaseModel):
    """A network by name, with overrides of its published sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description=f"One of {', '.join(DENOISERS)}.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the network to change, e.g. {width: 64}."
    )


def build(config: DenoiserConfig) -> nn.Module:
    """Build the untrained network.

    Raises:
        UserError: There is no such network.
        ValidationError: The settings are invalid.
    """
    if config.name not in DENOISERS:
        raise UserError(f"denoiser {config.name!r} does not exist; choose one of {', '.join(DENOISERS)}")
    settings, network = DENOISERS[config.name]
    return network(settings.model_validate(config.settings))
