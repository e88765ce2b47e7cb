"""Interface between the training loop and the objective of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from pngmodel.metrics.autocorrelation import autocorrelation
from pngmodel.training.samples import Batch

Metrics = dict[str, Tensor]
"""Scalars to log, on the device of the objective."""


@dataclass(frozen=True)
class Pictures:
    """Real and generated noise to log as images, and metrics of it."""

    rows: dict[str, Tensor]
    """Noise (B, 3, H, W) by name of the row."""
    metrics: dict[str, float] = field(default_factory=dict)


Learned_contra = TypeVar("Learned_contra", bound=Batch, contravariant=True)


class Objective(Protocol[Learned_contra]):
    """A torch module whose trainable parameters are optimised, and whose call returns the loss.

    Called as ``objective(*batch.tensors(), step)``; returns the mean loss of the samples and metrics to log. Random
    numbers except dropout must depend only on the numbers of the samples. See also :func:`lr_multipliers_of`.
    """

    name: str

    def pictures(self, batch: Learned_contra) -> Pictures:
        """Return images of a batch to log; called with the EMA weights."""
        ...

    def compile(self) -> None:
        """Compile the expensive parts of the module in place."""
        ...


def as_module(objective: Objective[Any]) -> nn.Module:
    """Return the objective as a torch module, for type checkers."""
    if not isinstance(objective, nn.Module):
        raise TypeError(f"{objective.name}: an objective must be a torch module")
    return objective


def lr_multipliers_of(objective: Objective[Any]) -> Mapping[str, float]:
    """Return the factors on the learning rate by prefix of the parameter name; empty if the objective has none."""
    found: Mapping[str, float] = getattr(objective, "lr_multipliers", {})
    return found


def noise_comparison(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the ratio of standard deviations, generated over real, and the absolute error of lag-1 autocorrelation."""
    real, generated = real.cpu().float(), generated.cpu().float()
    lag1 = [float(sum(autocorrelation(x, 1).mean() for x in noise) / len(noise)) for noise in (real, generated)]
    std_ratio = float(generated.std() / real.std())
    return {"generated_std_ratio": std_ratio, "generated_lag1_error": abs(lag1[1] - lag1[0])}
