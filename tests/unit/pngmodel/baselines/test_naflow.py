"""NAFlow: invertible, with the true log-determinant; noise-aware sampling finds the setting of its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from pngmodel.baselines.naflow import NAFlow, NAFlowConfig, NAFlowGenerator, NAFlowObjective
from pngmodel.baselines.naflow.flow import dequantised, parameter_count
from pngmodel.baselines.naflow.layers import ActNorm, ConditionalCoupling, Mixing, MixingRun, NormalisedConv
from pngmodel.errors import UserError
from pngmodel.training.random import normal, uniforms
from pngmodel.training.settings import StageSettings

SMALLEST = NAFlowConfig(settings=("dark", "bright"), levels=2, features=8, hidden=6)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Tests of exactness run in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def flow(awake: Callable[..., nn.Module]) -> NAFlow:
    """A flow whose couplings and priors all do something."""
    # Not more: triangular matrices of random entries are soon too ill-conditioned to be undone, even in float64.
    made = awake(NAFlow(SMALLEST), size=0.04).eval()
    assert isinstance(made, NAFlow)
    return made


def brute_force(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log|det| of the Jacobian of one sample, by autograd."""
    size = x.numel()
    jacobian = torch.autograd.functional.jacobian(lambda flat: function(flat.view(x.shape)).flatten(), x.flatten())
    assert jacobian.shape == (size, size)
    return torch.linalg.slogdet(jacobian).logabsdet


def test_logdet_is_that_of_the_jacobian(flow: NAFlow) -> None:
    noisy, clean = torch.rand(2, 3, 4, 8), torch.rand(2, 3, 4, 8)
    z, logdet = flow(noisy, clean)
    assert z.shape == (2, 48, 1, 2)
    for k in range(2):
        expected = brute_force(lambda x, k=k: flow(x, clean[k : k + 1])[0], noisy[k : k + 1])
        torch.testing.assert_close(logdet[k], expected, rtol=1e-9, atol=1e-9)
    assert logdet[0] != logdet[1]


@pytest.mark.parametrize("normalised", [True, False])
def test_logdet_of_mixing(awake: Callable[..., nn.Module], normalised: bool) -> None:
    layer = awake(Mixing(5, normalised=normalised)).eval()
    x = torch.randn(1, 5, 2, 3)
    torch.testing.assert_close(layer(x)[1], brute_force(lambda y: layer(y)[0], x))


def test_logdet_of_a_coupling_of_odd_channels(awake: Callable[..., nn.Module]) -> None:
    layer = awake(ConditionalCoupling(5, 4, 6, 1e-3)).eval()
    x, features = torch.randn(1, 5, 3, 2), torch.randn(1, 4, 3, 2)
    y, logdet = layer(x, features)
    torch.testing.assert_close(logdet[0], brute_force(lambda v: layer(v, features)[0], x))
    torch.testing.assert_close(layer.inverse(y, features), x)


def test_inverse_undoes_forward_and_forward_undoes_inverse(flow: NAFlow) -> None:
    noisy, clean = torch.rand(3, 3, 16, 8), torch.rand(3, 3, 16, 8)
    torch.testing.assert_close(flow.inverse(flow(noisy, clean)[0], clean), noisy, rtol=0, atol=1e-9)
    z = torch.randn(3, 48, 4, 2)
    torch.testing.assert_close(flow(flow.inverse(z, clean), clean)[0], z, rtol=0, atol=1e-9)


def test_the_published_size_is_invertible_in_single_precision(awake: Callable[..., nn.Module]) -> None:
    torch.set_default_dtype(torch.float32)
    flow = awake(NAFlow(), size=0.01).eval()
    noisy, clean = torch.rand(1, 3, 32, 40), torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        z, _ = flow(noisy, clean)
        assert z.shape == (1, 192, 4, 5)
        torch.testing.assert_close(flow.inverse(z, clean), noisy, rtol=0, atol=1e-3)


def test_a_run_of_linear_layers_is_undone_at_once(awake: Callable[..., nn.Module]) -> None:
    run = awake(MixingRun(*(Mixing(6) for _ in range(3)))).eval()
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(run.inverse(run(x)[0], run.unmixing()), x)


def test_mixing_starts_as_a_rotation() -> None:
    x = torch.randn(1, 12, 3, 3)
    y, logdet = Mixing(12, normalised=False)(x)
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(logdet, torch.zeros(()), atol=1e-10, rtol=0)


def test_parameter_count() -> None:
    for config in (SMALLEST, NAFlowConfig()):
        found = sum(p.numel() for p in NAFlow(config).parameters() if p.requires_grad)
        assert found == parameter_count(config)
    assert parameter_count(NAFlowConfig()) == 1_053_131
    assert len(NAFlowConfig().settings) == 34


def test_actnorm_is_set_by_the_first_batch_only() -> None:
    layer = ActNorm(3)
    x = 2 + 5 * torch.randn(4, 3, 8, 8)
    y = layer(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        layer(x + 1), y + 1 / x.std(dim=(0, 2, 3), keepdim=True, correction=0), rtol=1e-4, atol=0
    )

    loaded = ActNorm(3)
    loaded.load_state_dict(layer.state_dict())
    torch.testing.assert_close(loaded(x + 1), layer(x + 1))


def test_actnorm_is_not_set_outside_training() -> None:
    layer = ActNorm(3).eval()
    x = 2 + torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(layer(x), x)
    assert not layer.initialised


def test_a_normalised_convolution_is_the_same_folded_or_not(awake: Callable[..., nn.Module]) -> None:
    layer = awake(NormalisedConv(4, 5))
    x = torch.randn(2, 4, 3, 3)
    first = layer(x)  # sets the norm
    torch.testing.assert_close(first, layer(x))
    torch.testing.assert_close(first.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-6, rtol=0)


def test_log_likelihood_is_the_density_of_the_prior_and_the_jacobian(flow: NAFlow) -> None:
    noisy, clean = torch.rand(2, 3, 8, 4), torch.rand(2, 3, 8, 4)
    setting = torch.tensor([1, 0])
    z, logdet = flow(noisy, clean)
    for k in range(2):
        prior = torch.distributions.Normal(
            flow.mean[setting[k]][:, None, None], flow.std[setting[k]][:, None, None].abs()
        )
        expected = prior.log_prob(z[k]).sum() + logdet[k]
        torch.testing.assert_close(flow.log_likelihood(noisy, clean, setting)[k], expected)


def test_an_unknown_setting_is_the_mixture_of_all(flow: NAFlow) -> None:
    noisy, clean = torch.rand(1, 3, 8, 4), torch.rand(1, 3, 8, 4)
    known = torch.cat([flow.log_likelihood(noisy, clean, torch.tensor([k])) for k in (0, 1)])
    found = flow.log_likelihood(noisy, clean, torch.tensor([-1]))[0]
    torch.testing.assert_close(found, known.max() + (known - known.max()).exp().mean().log())


def test_every_parameter_learns(flow: NAFlow) -> None:
    flow.train()
    noisy, clean = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    flow.log_likelihood(noisy, clean, torch.tensor([0, 1])).sum().backward()
    silent = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_likelihood_tells_settings_apart_after_a_little_training() -> None:
    torch.set_default_dtype(torch.float32)
    flow = NAFlow(SMALLEST.model_copy(update={"levels": 1, "transitions": 1, "steps": 1}))
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    g = torch.Generator().manual_seed(0)
    setting = torch.tensor([0, 1] * 4)
    level = torch.tensor([0.02, 0.1] * 4)[:, None, None, None]

    def batch() -> tuple[Tensor, Tensor]:
        clean = torch.rand(8, 3, 1, 1, generator=g).expand(-1, -1, 16, 16)
        return clean + level * torch.randn(8, 3, 16, 16, generator=g), clean

    for _ in range(60):
        noisy, clean = batch()
        optimiser.zero_grad()
        (-flow.log_likelihood(noisy, clean, setting).mean() / noisy[0].numel()).backward()
        optimiser.step()
    noisy, clean = batch()
    weights, _, std = flow.noise_aware_prior(flow(noisy, clean)[0])
    assert (weights.argmax(dim=1) == setting).all()
    assert (std[1::2].mean() > std[::2].mean()).item()


def test_noise_aware_prior_mixes_the_settings_by_their_likelihood(flow: NAFlow) -> None:
    with torch.no_grad():
        flow.mean[0], flow.mean[1] = 0.0, 1.0
        flow.std.fill_(0.5)
    halfway = torch.full((1, 48, 2, 2), 0.5)
    weights, mean, std = flow.noise_aware_prior(halfway)
    torch.testing.assert_close(weights, torch.full((1, 2), 0.5))
    torch.testing.assert_close(mean, torch.full((1, 48), 0.5))
    torch.testing.assert_close(std, torch.full((1, 48), 0.5))
    nearer, _, _ = flow.noise_aware_prior(halfway - 0.01)
    # Of one place: 48 channels, each .5 ((.51 / .5)^2 - (.49 / .5)^2) = .04 nats.
    assert nearer[0, 0].item() == pytest.approx(1 / (1 + math.exp(-48 * 0.04)), rel=1e-6)


def test_the_loss_is_in_bits_per_value() -> None:
    torch.set_default_dtype(torch.float32)
    objective = NAFlowObjective(NAFlow(SMALLEST).eval(), StageSettings(steps=1, batch=2, crop=16, seed=3))
    noisy, clean = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    numbers, setting = torch.tensor([5, 9]), torch.tensor([0, -1])
    loss, metrics = objective(noisy, clean, numbers, setting, 0)
    spread = uniforms("dequantise", 3, numbers, (3, 16, 16), noisy.device)
    jitter = normal("condition", 3, numbers, (3, 16, 16), noisy.device)
    seen = (clean + 3 / 255 * jitter).clamp(0, 1)
    nats = -objective.flow.log_likelihood(dequantised(noisy, spread), seen, setting) / (3 * 16 * 16)
    # Density of an image on [0, 1] to probability of a level: divided by 256, which is 8 bits.
    torch.testing.assert_close(loss, nats.mean() / math.log(2) + 8)
    assert 0 <= metrics["setting_accuracy"] <= 1


def test_dequantised() -> None:
    image = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(dequantised(image, torch.tensor([0.0, 0.5])), image - torch.tensor([1 / 512, 0.0]))


@pytest.fixture
def generator(awake: Callable[..., nn.Module]) -> NAFlowGenerator:
    """The generator of a flow that draws something, in single precision."""
    torch.set_default_dtype(torch.float32)
    made = awake(NAFlow(SMALLEST), size=0.05)
    assert isinstance(made, NAFlow)
    return NAFlowGenerator(made)


def test_seeds_references_sizes_and_grey(generator: NAFlowGenerator) -> None:
    clean = torch.rand(1, 3, 13, 9)
    prompts = generator.extract(torch.rand(3, 18, 30), torch.rand(3, 18, 30))
    assert prompts["mean"].shape == prompts["std"].shape == (48,)
    drawn = generator.sample(clean, [prompts], [1])
    assert drawn.shape == clean.shape
    assert torch.equal(drawn, generator.sample(clean, [prompts], [1]))
    assert not torch.equal(drawn, generator.sample(clean, [prompts], [2]))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert generator.sample(clean[:, :1], [generator.extract(clean[0, :1], clean[0, :1])], [1]).shape == (1, 1, 13, 9)


def test_refusals(generator: NAFlowGenerator) -> None:
    with pytest.raises(UserError, match="too small"):
        generator.extract(torch.rand(3, 3, 20), torch.rand(3, 3, 20))
    with pytest.raises(UserError, match="std"):
        generator.sample(torch.rand(1, 3, 8, 8), [{"mean": torch.zeros(48)}], [1])
