"""Wasserstein training of a generator against a critic, both in one objective with one optimiser.

The published recipes alternate: a step of the critic, then one of the generator. Here both learn simultaneously: the
critic's loss sees fakes that are cut off from the generator, the generator's loss sees a critic whose parameters (but
not its inputs) are cut off from it. The sum of both losses then has, for each network's parameters, the gradient of
that network's own loss, and one step of Adam updates both.

Alternating recipes give the critic several steps for one of the generator. Here it has a learning rate of its own
(:data:`PACE`; two time scales, Heusel et al. 2017), since a generator that is faster than its critic runs away.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

PACE = 0.1
"""Learning rate of a generator over that of its critic."""
_PENALTY = 10.0  # Gulrajani et al. 2017


class ResidualBlock(nn.Module):
    """x + convolution(PReLU(convolution(x))), reflected at the border."""

    def __init__(self, channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        first, second = (same_conv(channels, channels, kernel, bias=bias) for _ in range(2))
        self.body = nn.Sequential(first, nn.PReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Critic(nn.Module):
    """Images (B, 3, H, W) -> a number per pixel (B, 1, H, W): residual blocks at full resolution, no normalisation."""

    def __init__(self, width: int, blocks: int, *, gain: float = 1.0) -> None:
        """``gain`` multiplies the images: noise alone is small."""
        super().__init__()
        self.gain = gain
        self.body = nn.Sequential(
            same_conv(3, width, 3),
            nn.PReLU(),
            *(ResidualBlock(width, 3) for _ in range(blocks)),
            same_conv(width, 1, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images * self.gain)


def same_conv(inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size, reflected at the border."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)


def generator_loss(critic: nn.Module, fake: Tensor) -> Tensor:
    """-critic(fake), whose gradient reaches what made ``fake`` and not the critic's parameters."""
    cut_off = {name: p.detach() for name, p in critic.named_parameters()}
    return -functional_call(critic, cut_off, (fake,)).mean()


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the critic with gradient penalty (WGAN-GP, algorithm 1), and by how much it prefers real images.

    Args:
        critic: what learns.
        real: (B, 3, H, W).
        fake: of the same shape; no gradient goes back through it.
        weights: (B,) in [0, 1), where between both the penalty is taken.
    """
    fake = fake.detach()
    preference = critic(real).mean() - critic(fake).mean()
    between = torch.lerp(fake, real, weights[:, None, None, None].to(fake)).requires_grad_(True)
    # The sum over n pixels, divided by the root of n: the slope of a critic that looks at neighbourhoods is then of one
    # size for all crops, and of the size it starts with.
    locations = critic(between).flatten(1)
    judged = (locations.sum(1) / locations.shape[1] ** 0.5).sum()
    (slope,) = torch.autograd.grad(judged, between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return _PENALTY * penalty - preference, preference.detach()
