"""Which networks there are, and how each is made from its settings."""

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
"""By name, the settings and the network that is made from them: (B, C, H, W) in [0, 1] to the same, with ``multiple``,
what the sides of its input have to be multiples of."""


class DenoiserConfig(BaseModel):
    """A network by name, and what is to be other than in its publication."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description=f"One of {', '.join(DENOISERS)}.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the network to change, e.g. {width: 64}."
    )


def build(config: DenoiserConfig) -> nn.Module:
    """The untrained network.

    Raises:
        UserError: no such network. ValidationError: its settings are wrong.
    """
    if config.name not in DENOISERS:
        raise UserError(f"denoiser {config.name!r} does not exist; choose one of {', '.join(DENOISERS)}")
    settings, network = DENOISERS[config.name]
    return network(settings.model_validate(config.settings))
