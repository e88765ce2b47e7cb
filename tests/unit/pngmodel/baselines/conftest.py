"""Made pairs and a short training loop for baselines that learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pngmodel.training.loop import _optimiser
from pngmodel.training.objective import Objective, as_module, lr_multipliers_of
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

SIDE = 32
STAGE = StageSettings(steps=1, batch=8, crop=SIDE, seed=1)


def made_pairs(first: int, count: int, side: int = SIDE) -> PairBatch:
    """Flat squares with noise whose std is .02 + .08 x intensity; each pair has a strength of its own, .5 to 1.5."""
    g = torch.Generator().manual_seed(first)
    clean = 0.1 + 0.8 * torch.rand(count, 3, side // 8, side // 8, generator=g)
    clean = clean.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
    strength = 0.5 + torch.rand(count, 1, 1, 1, generator=g)
    noise = torch.randn(count, 3, side, side, generator=g) * strength * (0.02 + 0.08 * clean)
    return PairBatch((clean + noise).clamp(0, 1), clean, torch.arange(first, first + count))


def learn(objective: Objective[PairBatch], steps: int, rate: float, batch: int = 8) -> list[float]:
    """Losses of a few steps of Adam (.5, .9)."""
    module = as_module(objective).train()
    settings = STAGE.model_copy(update={"optimiser": "adam", "betas": (0.5, 0.9), "learning_rate": rate})
    optimiser = _optimiser(settings, dict(module.named_parameters()), lr_multipliers_of(objective))
    for group in optimiser.param_groups:
        group["lr"] *= group["lr_multiplier"]
    losses = []
    for step in range(steps):
        loss, _ = module(*made_pairs(step * batch, batch).tensors(), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture
def stage() -> StageSettings:
    """Settings of a stage, of which objectives read the seed."""
    return STAGE


@pytest.fixture
def pairs_of() -> Callable[..., PairBatch]:
    """:func:`made_pairs` as a fixture."""
    return made_pairs


@pytest.fixture
def trained_by() -> Callable[..., list[float]]:
    """:func:`learn` as a fixture."""
    return learn


@pytest.fixture
def std_ratios() -> Callable[[Tensor, Tensor, Tensor], list[float]]:
    """Std of drawn over real noise in the darker and the brighter half of a clean image."""

    def measure(drawn: Tensor, real: Tensor, clean: Tensor) -> list[float]:
        dark = clean < clean.median()
        return [float((drawn - clean)[part].std() / (real - clean)[part].std()) for part in (dark, ~dark)]

    return measure
