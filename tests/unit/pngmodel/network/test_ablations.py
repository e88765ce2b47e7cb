"""Every ablation of the paper is one key of a configuration, and changes what it says and nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pngmodel.generator import NoiseGenerator
from pngmodel.network.consistency import Schedule, consistency_loss, denoise, distance
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.network.presets import PRESETS, ModelConfig
from pngmodel.network.transformer import FCond

CPU = Precision(torch.device("cpu"), torch.float32)


@pytest.fixture
def build(smallest: Callable[..., ModelConfig], awake: Callable[..., nn.Module]) -> Callable[..., NoiseModel]:
    def make(**changes: object) -> NoiseModel:
        torch.manual_seed(0)
        return awake(NoiseModel(smallest(**changes))).eval()  # type: ignore[return-value]

    return make


def references(count: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Pairs on one clean image whose noise differs in strength and correlation."""
    g = torch.Generator().manual_seed(0)
    clean = 0.3 + 0.4 * torch.rand(3, 32, 32, generator=g)
    noise = [
        torch.randn(3, 32, 32, generator=g),
        torch.nn.functional.avg_pool2d(torch.randn(3, 34, 34, generator=g), 3, 1),
    ]
    return [(clean + (0.05 * (k + 1)) * noise[k], clean) for k in range(count)]


@pytest.mark.parametrize("prompts", ["none", "global", "global+local"])
def test_prompts(build: Callable[..., NoiseModel], prompts: str) -> None:
    model = build(prompts=prompts)
    names = set(model.autoencoder.encoder.prompts(torch.zeros(1, 3, 32, 32)))
    expected = {f"global_{k}" for k in range(4)} if prompts != "none" else set()
    assert names == (expected | {"local"} if prompts == "global+local" else expected)
    generator = NoiseGenerator(model)
    drawn = [generator.sample(c[None], [generator.extract(n, c)], [1]) for n, c in references()]
    # Without prompts nothing of the reference reaches the image.
    assert torch.equal(*drawn) == (prompts == "none")


@pytest.mark.parametrize("condition", ["time", "attention"])
def test_condition(build: Callable[..., NoiseModel], condition: str) -> None:
    model = build(condition=condition)
    transformer = model.transformer
    assert all((b.attention.prompt_qkv is None) == (condition == "time") for b in transformer.blocks)
    kept = transformer.condition

    class Shuffled(nn.Module):
        """F_cond with its places exchanged: the same mean, which is all that a time embedding sees."""

        def forward(self, *inputs: object) -> FCond:
            return FCond(kept(*inputs).shared.flip(1))

    x, clean = torch.randn(1, 192, 4, 4), torch.rand(1, 3, 32, 32)
    maps = model.autoencoder.encoder.expand(model.autoencoder.encoder.prompts(torch.randn(1, 3, 32, 32)), 32, 32)
    before = transformer(x, torch.zeros(1), maps, clean)
    transformer.condition = Shuffled()
    after = transformer(x, torch.zeros(1), maps, clean)
    assert torch.allclose(before, after, atol=1e-4) == (condition == "time")


@pytest.mark.parametrize("depth", [4, 8])
def test_depth(smallest: Callable[..., ModelConfig], depth: int) -> None:
    with torch.device("meta"):
        model = NoiseModel(PRESETS["paper"].model_copy(update={"depth": depth}))
    block = sum(p.numel() for p in model.transformer.blocks[0].parameters())
    rest = sum(p.numel() for p in model.transformer.parameters()) - depth * block
    assert len(model.transformer.blocks) == depth
    # A DiT-S block of width 384 (12 d^2 + modulation 6 d^2) and the second QKV of Prompt Attention (3 d^2).
    assert block == pytest.approx(21 * 384**2, rel=0.01)
    assert rest < 6e6


@pytest.mark.parametrize("rho", [3, 5, 7])
def test_rho(build: Callable[..., NoiseModel], rho: int) -> None:
    model = build(correlation_size=rho)
    encoder = model.autoencoder.encoder
    code = encoder.prompts(torch.randn(1, 3, 32, 32))
    assert code["local"].shape[2] == rho**2
    assert encoder.local_prompt.combine[0].in_channels == 2 * rho**2
    assert encoder.expand(code, 32, 32)[1].shape == (1, 4, 32, 32)


def test_losses_are_three_functions_of_one_difference() -> None:
    u = torch.tensor([[[[3.0, 4.0]]]])
    c = 0.00054 * math.sqrt(2)
    expected = {
        "pseudo_huber": math.sqrt(25 + c**2) - c,
        "pseudo_huber_elementwise": math.sqrt(9 + c**2) + math.sqrt(16 + c**2) - 2 * c,
        "cauchy": math.log(1 + 25 / (2 * c**2)),
    }
    assert {kind: float(distance(u, kind)[0]) for kind in expected} == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["pseudo_huber", "pseudo_huber_elementwise", "cauchy"])
def test_the_loss_of_a_configuration_is_the_one_that_is_trained(kind: str) -> None:
    schedule = Schedule()
    latent, eps = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    level = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)

    def network(x: Tensor, _: Tensor) -> Tensor:
        return 0.3 * x

    found = consistency_loss(
        network,
        latent,
        eps=eps,
        level=level,
        step=0,
        total_steps=10,
        schedule=schedule,
        kind=kind,  # type: ignore[arg-type]
    )
    sigmas = schedule.sigmas(11)
    index = [int((schedule.level_probabilities(sigmas).cumsum(0) <= u).sum()) for u in level]
    terms = []
    for k, i in enumerate(index):
        student, teacher = (
            denoise(network, latent[k : k + 1] + sigmas[j].float() * eps[k : k + 1], sigmas[j : j + 1], schedule)
            for j in (i + 1, i)
        )
        terms.append(distance(student - teacher, kind)[0] / float(sigmas[i + 1] - sigmas[i]))  # type: ignore[arg-type]
    assert float(found) == pytest.approx(float(sum(terms) / 4), rel=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
def test_condition_kernel(build: Callable[..., NoiseModel], kernel: int) -> None:
    model = build(condition_kernel=kernel, prompts="none")
    clean = torch.zeros(1, 3, 40, 40)
    changed = clean.clone()
    changed[..., 16:24, 16:24] = 1  # the token in the middle
    seen = model.transformer.condition([], changed, None).shared - model.transformer.condition([], clean, None).shared
    seen = seen.abs().sum(-1)
    touched = (seen.reshape(5, 5) > 1e-6).nonzero().tolist()
    near = range(2 - kernel // 2, 3 + kernel // 2)
    assert touched == [[y, x] for y in near for x in near]


@pytest.mark.parametrize("channels", [16, 64, 192])
def test_latent_channels(build: Callable[..., NoiseModel], channels: int) -> None:
    model = build(latent_channels=channels, latent_init="random")
    noise = torch.randn(1, 3, 32, 32)
    latent, _ = model.autoencoder.encoder(noise)
    assert latent.shape == (1, channels, 4, 4)
    assert model.autoencoder.decoder(latent, noise).shape == noise.shape
    generator = NoiseGenerator(model)
    (noisy, clean), _ = references()
    assert generator.sample(clean[None], [generator.extract(noisy, clean)], [1]).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("preconditioning", ["edm", "gaussian"])
def test_preconditioning(build: Callable[..., NoiseModel], preconditioning: str) -> None:
    schedule = Schedule(preconditioning=preconditioning)  # type: ignore[arg-type]
    x = torch.randn(3, 4, 2, 2)

    def nothing(scaled: Tensor, _: Tensor) -> Tensor:
        return torch.zeros_like(scaled)

    low = torch.full((3,), schedule.sigma_min)
    torch.testing.assert_close(denoise(nothing, x, low, schedule), x, atol=1e-6, rtol=0)
    # Of noise at sigma_max an untrained network leaves next to nothing (edm) or noise of std sigma_data (gaussian).
    eps = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    left = denoise(nothing, 80 * eps, torch.full((16,), 80.0), schedule)
    assert float(left.std()) == pytest.approx(0.5 if preconditioning == "gaussian" else 0.5**2 / 80, rel=0.05)


def test_gaussian_preconditioning_solves_the_flow_of_white_latents() -> None:
    """Against Euler's method in float64: dx/ds = s x / (s^2 + sd^2) for data N(0, sd^2) (EDM, eq. 1)."""
    schedule = Schedule(preconditioning="gaussian")
    for start in (80.0, 2.0, 0.3):
        x, sigma, steps = 1.7, start, 200_000
        step = (start - schedule.sigma_min) / steps
        for _ in range(steps):
            x -= step * sigma * x / (sigma**2 + schedule.sigma_data**2)
            sigma -= step
        assert float(schedule.skip(torch.tensor(start))) * 1.7 == pytest.approx(x, rel=1e-3)


def test_an_ablation_is_a_key_of_the_training_configuration() -> None:
    base = PRESETS["paper"].model_dump()
    for key, value in (
        ("prompts", "none"), ("prompts", "global"), ("condition", "time"), ("depth", 4), ("correlation_size", 3),
        ("correlation_size", 7), ("condition_kernel", 1), ("latent_channels", 16), ("latent_channels", 64),
        ("whitening", "moments"), ("preconditioning", "gaussian"),
    ):  # fmt: skip
        changed = ModelConfig(**(copy.deepcopy(base) | {key: value}))
        assert {k for k, v in changed.model_dump().items() if v != base[k]} == {key}
