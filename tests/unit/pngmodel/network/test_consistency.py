"""Consistency training against the equations of Song & Dhariwal (iCT), in float64 where it matters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from pngmodel.network.consistency import Schedule, consistency_loss, denoise, distance, one_step

SCHEDULE = Schedule()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", [11, 21, 161])
def test_sigmas_follow_the_formula(levels: int) -> None:
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(low + (i - 1) / (levels - 1) * (high - low)) ** 7 for i in range(1, levels + 1)]
    found = SCHEDULE.sigmas(levels)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("total", [5, 4000, 250_000])
def test_curriculum_doubles_every_fifth(total: int) -> None:
    fifth = total // 5
    for stage, levels in enumerate([11, 21, 41, 81, 161]):
        assert SCHEDULE.levels(stage * fifth, total) == levels
        assert SCHEDULE.levels((stage + 1) * fifth - 1, total) == levels


def test_curriculum_ends_at_its_largest_whatever_the_steps() -> None:
    assert SCHEDULE.levels(4003, 4003) == 161
    assert SCHEDULE.levels(2, 3) == 41  # fewer steps than stages: one step each
    assert Schedule(s0=2, s1=8).levels(99, 99) == 9


def test_level_probabilities_are_lognormal_mass() -> None:
    sigmas = SCHEDULE.sigmas(41)
    mass = np.diff(stats.lognorm.cdf(sigmas.numpy(), s=2.0, scale=math.exp(-1.1)))
    np.testing.assert_allclose(SCHEDULE.level_probabilities(sigmas).numpy(), mass / mass.sum(), rtol=1e-9)


def test_identity_at_the_smallest_sigma() -> None:
    x = 3 * normal(4, 6, 5, 5)
    smallest = SCHEDULE.sigmas(161)[0]
    for sigma in (torch.full((4,), 0.002), smallest.expand(4)):
        assert torch.equal(denoise(lambda y, level: 1e3 * torch.ones_like(y), x, sigma, SCHEDULE), x)


def test_preconditioning_follows_the_formula() -> None:
    x, sigma = normal(3, 2, 4, 4), torch.tensor([0.01, 0.7, 80.0])
    seen = {}

    def network(scaled: Tensor, level: Tensor) -> Tensor:
        seen.update(scaled=scaled, level=level)
        return torch.full_like(scaled, 2.0)

    found = denoise(network, x, sigma, SCHEDULE)
    s = sigma.double().numpy()[:, None, None, None]
    np.testing.assert_allclose(seen["scaled"].numpy(), x.numpy() / np.sqrt(s**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(seen["level"].numpy(), np.log(s.ravel()) / 4, rtol=1e-5)
    skip, out = 0.25 / ((s - 0.002) ** 2 + 0.25), 0.5 * (s - 0.002) / np.sqrt(s**2 + 0.25)
    np.testing.assert_allclose(found.numpy(), skip * x.numpy() + out * 2, rtol=1e-5, atol=1e-6)


def test_one_step_starts_from_the_largest_sigma() -> None:
    noise = normal(2, 3, 4, 4)
    seen = {}

    def network(scaled: Tensor, level: Tensor) -> Tensor:
        seen.update(scaled=scaled, level=level)
        return scaled

    out = one_step(network, noise, SCHEDULE)
    torch.testing.assert_close(seen["level"], torch.full((2,), math.log(80) / 4))
    # c_in sigma_max eps is eps to 2e-5: the network sees unit variance.
    torch.testing.assert_close(seen["scaled"], noise, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out, denoise(network, 80 * noise, torch.full((2,), 80.0), SCHEDULE))


def test_pseudo_huber_is_over_the_whole_sample() -> None:
    u = 0.01 * normal(2, 192, 32, 32)
    c = 0.00054 * math.sqrt(196_608)
    assert c == pytest.approx(0.2394, abs=5e-5)
    flat = u.double().numpy().reshape(2, -1)
    whole = np.sqrt((flat**2).sum(1) + c**2) - c
    np.testing.assert_allclose(distance(u, "pseudo_huber").numpy(), whole, rtol=1e-5)
    each = (np.sqrt(flat**2 + c**2) - c).sum(1)
    np.testing.assert_allclose(distance(u, "pseudo_huber_elementwise").numpy(), each, rtol=1e-2)
    cauchy = np.log1p((flat**2).sum(1) / (2 * c**2))
    np.testing.assert_allclose(distance(u, "cauchy").numpy(), cauchy, rtol=1e-5)
    assert not np.allclose(whole, each, rtol=0.1)
    assert not np.allclose(whole, cauchy, rtol=0.1)


@pytest.mark.parametrize("kind", ["pseudo_huber", "pseudo_huber_elementwise", "cauchy"])
def test_distance_of_equals_is_zero_with_a_finite_gradient(kind: str) -> None:
    u = torch.zeros(2, 3, 4, 4, requires_grad=True)
    d = distance(u, kind)  # type: ignore[arg-type]
    assert torch.equal(d, torch.zeros(2))
    d.sum().backward()
    assert torch.equal(u.grad, torch.zeros_like(u))


def run_loss(network: Callable[[Tensor, Tensor], Tensor], latent: Tensor, seed: int = 0, step: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    eps, level = torch.randn(latent.shape, generator=g), torch.rand(len(latent), generator=g)
    return consistency_loss(network, latent, eps=eps, level=level, step=step, total_steps=100, schedule=SCHEDULE)


def test_loss_equals_the_equation_with_one_eps_for_both_levels() -> None:
    latent = 0.5 * normal(6, 4, 3, 3)
    calls: list[tuple[Tensor, Tensor]] = []

    def network(scaled: Tensor, level: Tensor) -> Tensor:
        calls.append((scaled.detach().double(), torch.exp(4 * level.double())))
        return torch.tanh(scaled) * 0.3

    found = run_loss(network, latent, step=85)
    (student_in, high), (teacher_in, low) = calls
    sigmas = SCHEDULE.sigmas(161)
    index_low = (sigmas[None] - low[:, None]).abs().argmin(1)
    index_high = (sigmas[None] - high[:, None]).abs().argmin(1)
    assert torch.equal(index_high, index_low + 1)
    low, high = sigmas[index_low], sigmas[index_high]
    eps = []
    terms = []
    for s, x in ((high, student_in), (low, teacher_in)):
        s = s[:, None, None, None]
        noisy = x * (s**2 + 0.25).sqrt()
        eps.append((noisy - latent.double()) / s)
        f = 0.25 / ((s - 0.002) ** 2 + 0.25) * noisy + 0.5 * (s - 0.002) / (s**2 + 0.25).sqrt() * 0.3 * torch.tanh(x)
        terms.append(f)
    torch.testing.assert_close(eps[0], eps[1], atol=1e-3, rtol=1e-3)
    assert 0.8 < float(eps[0].std()) < 1.2
    c = 0.00054 * math.sqrt(36)
    d = ((terms[0] - terms[1]).square().flatten(1).sum(1) + c**2).sqrt() - c
    torch.testing.assert_close(found.double(), (d / (high - low)).mean(), rtol=1e-3, atol=1e-6)


def test_loss_is_a_function_of_its_generator() -> None:
    latent = normal(4, 2, 4, 4)
    network = torch.sin
    losses = [float(run_loss(lambda x, level: network(x), latent, seed)) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_student_and_teacher_share_the_dropout_mask() -> None:
    masks: list[Tensor] = []

    def network(x: Tensor, level: Tensor) -> Tensor:
        masks.append(F.dropout(torch.ones_like(x), 0.5, training=True))
        return x * masks[-1]

    torch.manual_seed(0)
    run_loss(network, normal(2, 4, 8, 8))
    run_loss(network, normal(2, 4, 8, 8))
    student, teacher, next_student, _ = masks
    assert torch.equal(student, teacher)
    assert 0 < float((student == 0).float().mean()) < 1
    assert not torch.equal(student, next_student)


def test_teacher_gets_no_gradient() -> None:
    latent = normal(4, 3, 4, 4)
    weight = torch.tensor(0.4, requires_grad=True)
    with_grad: list[bool] = []
    outputs: list[Tensor] = []

    def network(x: Tensor, level: Tensor) -> Tensor:
        with_grad.append(torch.is_grad_enabled())
        out = weight * x
        outputs.append(out)
        return out

    run_loss(network, latent).backward()
    assert with_grad == [True, False]
    assert outputs[0].requires_grad
    assert not outputs[1].requires_grad

    # The gradient is that of the student alone, the teacher held fixed.
    replay = iter([weight, weight.detach()])
    expected = torch.autograd.grad(run_loss(lambda x, level: next(replay) * x, latent), weight)[0]
    torch.testing.assert_close(weight.grad, expected)


def test_perfect_denoiser_of_one_point_has_no_loss() -> None:
    # All latents equal a: f = a everywhere solves the consistency condition exactly.
    a = torch.full((8, 2, 3, 3), 0.7)

    def network(scaled: Tensor, level: Tensor) -> Tensor:
        s = torch.exp(4 * level.double())[:, None, None, None]
        x = scaled.double() * (s**2 + 0.25).sqrt()
        skip, out = 0.25 / ((s - 0.002) ** 2 + 0.25), 0.5 * (s - 0.002) / (s**2 + 0.25).sqrt()
        return (0.7 - skip * x) / out.clamp(min=1e-12)

    perfect = float(run_loss(network, a, step=0))
    trivial = float(run_loss(lambda x, level: torch.zeros_like(x), a, step=0))
    # Only the smallest level, where f is the identity, still differs.
    assert perfect < 0.25 * trivial
