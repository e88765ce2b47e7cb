"""Critic and generator in one loss: each parameter has the gradient of its own network's loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pngmodel.baselines.adversarial import Critic, critic_loss, generator_loss
from pngmodel.baselines.c2n import C2N, C2NConfig, C2NObjective
from pngmodel.errors import UserError
from pngmodel.training.settings import StageSettings

SMALLEST = C2NConfig(width=4, extractor=1, independent=1, dependent=1, randomness=2, critic_width=4, critic_blocks=1)


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor | None]:
    """By name, of separate backward passes: None where a parameter has no part in the loss."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True))


@pytest.fixture
def parts() -> tuple[nn.Module, Critic, Tensor, Tensor]:
    """A generator, a critic, what the generator made, and real images."""
    torch.manual_seed(0)
    maker, critic = nn.Conv2d(3, 3, 3, padding=1), Critic(4, 1)
    return maker, critic, maker(torch.rand(2, 3, 8, 8)), torch.rand(2, 3, 8, 8)


def test_the_generators_loss_does_not_teach_the_critic(parts: tuple[nn.Module, Critic, Tensor, Tensor]) -> None:
    maker, critic, fake, _ = parts
    loss = generator_loss(critic, fake)
    assert set(gradients(loss, critic).values()) == {None}
    found = gradients(loss, maker)
    plain = gradients(-critic(fake).mean(), maker)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name])


def test_the_critics_loss_does_not_teach_the_generator(parts: tuple[nn.Module, Critic, Tensor, Tensor]) -> None:
    maker, critic, fake, real = parts
    loss, preference = critic_loss(critic, real, fake, torch.tensor([0.2, 0.7]))
    assert set(gradients(loss, maker).values()) == {None}
    torch.testing.assert_close(preference, critic(real).mean() - critic(fake).mean())


def test_the_gradient_penalty() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((1, 3, 2, 2), 2.0))

        def forward(self, images: Tensor) -> Tensor:
            return (images * self.weight).sum((1, 2, 3), keepdim=True)

    same = torch.rand(2, 3, 2, 2)
    loss, preference = critic_loss(Linear(), same, same, torch.tensor([0.0, 0.5]))
    assert float(preference) == pytest.approx(0, abs=1e-6)
    assert loss.item() == pytest.approx(10 * (2 * 12**0.5 - 1) ** 2, rel=1e-5)


def test_a_step_of_c2n_is_the_two_steps_at_once(stage: StageSettings) -> None:
    torch.manual_seed(0)
    objective = C2NObjective(C2N(SMALLEST), stage)
    noisy, clean, numbers = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.arange(4)
    loss, _ = objective(noisy, clean, numbers, 0)
    loss.backward()
    together = {name: p.grad for name, p in objective.named_parameters()}

    from pngmodel.training.random import uniform

    shown = numbers[::2]
    noise = objective.network(clean[::2], objective._randomness(shown, clean[::2], "train"))
    fake = clean[::2] + noise
    critics, _ = critic_loss(objective.critic, noisy[1::2], fake, uniform("penalty", stage.seed, shown))
    own = -objective.critic(fake).mean() + noise.mean((0, 2, 3)).abs().mean()
    apart = {f"critic.{name}": g for name, g in gradients(critics, objective.critic).items()}
    apart |= {f"network.{name}": g for name, g in gradients(own, objective.network).items()}
    assert set(together) == set(apart)
    for name, gradient in together.items():
        expected = apart[name]
        if expected is not None:  # the critic's last bias cancels out
            torch.testing.assert_close(gradient, expected, msg=name)


def test_c2n_does_not_see_the_noise_of_its_clean_images(stage: StageSettings) -> None:
    torch.manual_seed(0)
    objective = C2NObjective(C2N(SMALLEST), stage)
    noisy, clean, numbers = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), torch.arange(4)
    loss = objective(noisy, clean, numbers, 0)[0]
    noisy[::2], clean[1::2] = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert torch.equal(objective(noisy, clean, numbers, 0)[0], loss)
    with pytest.raises(UserError, match="larger batch"):
        objective(noisy[:1], clean[:1], numbers[:1], 0)
