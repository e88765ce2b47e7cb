"""Flow-sRGB: invertible, with the true log-determinant; what it learns of heteroscedastic noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from pngmodel.baselines.flow_srgb import FlowSRGB, FlowSRGBConfig, FlowSRGBGenerator, FlowSRGBObjective
from pngmodel.baselines.flow_srgb.flow import reference_conditions
from pngmodel.errors import UserError
from pngmodel.training.random import uniforms
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

SMALLEST = FlowSRGBConfig(steps=2, hidden=4, features=4)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Tests of exactness run in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def flow(awake: Callable[..., nn.Module]) -> FlowSRGB:
    """A flow whose couplings and gain all do something."""
    made = awake(FlowSRGB(SMALLEST)).eval()
    assert isinstance(made, FlowSRGB)
    return made


def pair(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noise and clean images."""
    return 0.05 * torch.randn(count, 3, height, width), torch.rand(count, 3, height, width)


def test_logdet_is_that_of_the_jacobian(flow: FlowSRGB) -> None:
    noise, clean = pair(2, 4, 6)
    reference = reference_conditions(*pair(2, 16, 16))
    z, logdet = flow(noise, clean, reference)
    assert z.shape == (2, 12, 2, 3)
    for k in range(2):
        own = {name: value[k : k + 1] for name, value in reference.items()}
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, k=k, own=own: flow(flat.view(1, 3, 4, 6), clean[k : k + 1], own)[0].flatten(),
            noise[k].flatten(),
        )
        torch.testing.assert_close(logdet[k], torch.linalg.slogdet(jacobian).logabsdet)
    assert logdet[0] != logdet[1]


def test_inverse_undoes_forward(flow: FlowSRGB) -> None:
    noise, clean = pair(3, 8, 10)
    reference = reference_conditions(noise, clean)
    z, _ = flow(noise, clean, reference)
    torch.testing.assert_close(flow.inverse(z, clean, reference), noise)
    torch.testing.assert_close(flow(flow.inverse(z, clean, reference), clean, reference)[0], z)


def test_every_parameter_learns(flow: FlowSRGB) -> None:
    noise, clean = pair(2, 8, 8)
    flow.log_likelihood(noise, clean, reference_conditions(noise, clean)).sum().backward()
    assert [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_untrained_flow_is_the_gaussian_of_the_reference_and_the_loss_its_bits(stage: StageSettings) -> None:
    torch.set_default_dtype(torch.float32)
    flow = FlowSRGB(SMALLEST)
    noise, clean = pair(2, 16, 16)
    noisy, numbers = (clean + noise).clamp(0, 1), torch.tensor([4, 7])
    loss, _ = FlowSRGBObjective(flow, stage)(noisy, clean, numbers, 0)
    spread = uniforms("dequantise", stage.seed, numbers, (3, 16, 16), noisy.device)
    seen = noisy - clean + (spread - 0.5) / 255
    reference = reference_conditions(seen, clean)
    from pngmodel.baselines.reference_statistics import at_pixels

    gaussian = torch.distributions.Normal(*(at_pixels(reference[name], clean) for name in ("mean", "std")))
    expected = -gaussian.log_prob(seen).mean() / math.log(2) + math.log2(255)
    torch.testing.assert_close(loss, expected)


def test_it_learns_correlation_and_keeps_the_strength(
    stage: StageSettings,
    pairs_of: Callable[..., PairBatch],
    std_ratios: Callable[[Tensor, Tensor, Tensor], list[float]],
) -> None:
    torch.set_default_dtype(torch.float32)
    flow = FlowSRGB(FlowSRGBConfig(steps=3, hidden=8, features=8))
    objective = FlowSRGBObjective(flow, stage)
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)

    def batch(first: int, count: int = 8, side: int = 32) -> tuple[Tensor, Tensor, Tensor]:
        pairs = pairs_of(first, count, side)
        noise = pairs.noisy - pairs.clean
        noise = (noise + noise.roll(1, -1)) / 2**0.5  # neighbours share half of their variance
        return (pairs.clean + noise).clamp(0, 1), pairs.clean, pairs.numbers

    losses = []
    for step in range(80):
        loss, _ = objective(*batch(8 * step), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.05
    noisy, clean, _ = batch(9000, 1, 128)
    generator = FlowSRGBGenerator(flow)
    drawn = generator.sample(clean, [generator.extract(noisy[0], clean[0])], [1])
    assert std_ratios(drawn, noisy, clean) == pytest.approx([1, 1], abs=0.15)
    grain = (drawn - clean)[0]
    assert (grain[..., 1:] * grain[..., :-1]).mean() / grain.square().mean() > 0.2


@pytest.fixture
def generator(awake: Callable[..., nn.Module]) -> FlowSRGBGenerator:
    """The generator of a flow that draws something, in single precision."""
    torch.set_default_dtype(torch.float32)
    made = awake(FlowSRGB(SMALLEST))
    assert isinstance(made, FlowSRGB)
    return FlowSRGBGenerator(made)


def test_refusals(generator: FlowSRGBGenerator) -> None:
    with pytest.raises(UserError, match="too small"):
        generator.extract(torch.rand(3, 12, 20), torch.rand(3, 12, 20))
    with pytest.raises(UserError, match=r"structure.*missing"):
        generator.sample(torch.rand(1, 3, 8, 8), [{"mean": torch.zeros(3, 9), "std": torch.ones(3, 9)}], [1])
