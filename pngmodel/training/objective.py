"""What the training loop asks of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from pngmodel.metrics.autocorrelation import autocorrelation
from pngmodel.training.samples import Batch

Figures = dict[str, Tensor]
"""Scalars to log, still on their device."""


@dataclass(frozen=True)
class Pictures:
    """Noise to look at beside the real one, and what was measured on it."""

    rows: dict[str, Tensor]
    """Name of a row -> noise (B, 3, H, W) about N(0, 1)."""
    metrics: dict[str, float] = field(default_factory=dict)


Learned_contra = TypeVar("Learned_contra", bound=Batch, contravariant=True)


class Objective(Protocol[Learned_contra]):
    """One stage as a module: its trainable parameters are optimised, calling it gives the loss.

    Called as ``objective(*batch.tensors(), step)``, which returns the mean loss of these samples and figures to log.
    Everything random in it is a function of the samples' numbers, but for dropout. See also :func:`lr_multipliers_of`.
    """

    name: str

    def pictures(self, batch: Learned_contra) -> Pictures:
        """What the module makes of a batch; called with the averaged weights in place."""
        ...

    def compile(self) -> None:
        """Compile the parts that the loss spends its time in."""
        ...


def as_module(objective: Objective[Any]) -> nn.Module:
    """The same object as what it is besides."""
    if not isinstance(objective, nn.Module):
        raise TypeError(f"{objective.name}: an objective is a torch module")
    return objective


def lr_multipliers_of(objective: Objective[Any]) -> Mapping[str, float]:
    """Factors on the learning rate by prefix of the parameter name; empty if the objective has none."""
    found: Mapping[str, float] = getattr(objective, "lr_multipliers", {})
    return found


def strength(real: Tensor, drawn: Tensor) -> dict[str, float]:
    """Std of drawn noise over that of the real one, and the error of its correlation between neighbours."""
    real, drawn = real.cpu().float(), drawn.cpu().float()
    lag1 = [float(sum(autocorrelation(x, 1).mean() for x in noise) / len(noise)) for noise in (real, drawn)]
    return {"drawn_std_ratio": float(drawn.std() / real.std()), "drawn_lag1_error": abs(lag1[1] - lag1[0])}
