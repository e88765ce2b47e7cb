"""Training a denoiser: its losses, that it learns, and that it is taken up again with its running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pngmodel.denoisers import DenoiserConfig, build
from pngmodel.network.model import Precision
from pngmodel.seeds import generator
from pngmodel.training.denoising import DenoiserObjective, DenoiserSettings, denoising_loss
from pngmodel.training.loop import Machine, Outcome, run_stage
from pngmodel.training.samples import PairBatch

FLOAT = Precision(torch.device("cpu"), torch.float32)


class Squares:
    """Flat squares with white noise."""

    def __getitems__(self, numbers: Sequence[int]) -> PairBatch:
        clean = torch.stack([torch.rand(3, 1, 1, generator=generator("c", n)).expand(3, 16, 16) for n in numbers])
        noise = torch.stack([torch.randn(3, 16, 16, generator=generator("n", n)) for n in numbers])
        return PairBatch(clean + 0.1 * noise, clean.contiguous(), torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        return f"squares {numbers[0]}.."


def settings(**changes: object) -> DenoiserSettings:
    fields = {"steps": 12, "batch": 4, "crop": 16, "optimiser": "adam", "learning_rate": 3e-3, "ema": 0.0}
    return DenoiserSettings(**(fields | {"gradient_clip": None, "checkpoint_every": 4} | changes))


def trained(folder: Path, steps: int, **changes: object) -> tuple[nn.Module, Outcome]:
    torch.manual_seed(0)
    network = build(DenoiserConfig(name="dncnn", settings={"depth": 4, "width": 8}))
    objective = DenoiserObjective(network, settings(**changes), FLOAT)
    outcome = run_stage(
        objective, Squares(), settings(**({"steps": steps} | changes)), folder, identity="i", machine=Machine()
    )
    return network, outcome


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier", "psnr"])
def test_losses_by_hand(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 3, 5, 5)), rng.random((3, 3, 5, 5))
    wanted = {
        "l1": np.abs(x - y).mean(),
        "l2": ((x - y) ** 2).mean(),
        "charbonnier": np.sqrt((x - y) ** 2 + 1e-6).mean(),
        "psnr": np.mean([10 * np.log10(((a - b) ** 2).mean() + 1e-8) for a, b in zip(x, y, strict=True)]),
    }[kind]
    assert float(denoising_loss(kind, torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(wanted, rel=1e-9)


def test_it_learns_to_remove_white_noise(tmp_path: Path) -> None:
    network, outcome = trained(tmp_path, 250)
    assert outcome.finished
    batch = Squares().__getitems__(range(10_000, 10_016))
    with torch.no_grad():
        left = (network(batch.noisy) - batch.clean).square().mean()
    assert left < 0.25 * (batch.noisy - batch.clean).square().mean()


def test_a_training_that_was_cut_off_ends_the_same(tmp_path: Path) -> None:
    straight, _ = trained(tmp_path / "a", 12)
    trained(tmp_path / "b", 8)
    resumed, outcome = trained(tmp_path / "b", 12)
    assert outcome.finished
    names = [name for name, _ in resumed.named_buffers()]
    assert any(name.endswith("running_var") for name in names)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
