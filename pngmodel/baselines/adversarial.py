"""Wasserstein GAN training of a generator and a critic in one objective with one optimiser.

Published recipes alternate between steps of the critic and of the generator. Here both are updated simultaneously: the
loss of the critic uses detached fakes, and the loss of the generator a critic with detached parameters. The gradient of
the sum of both losses with respect to each network is then the gradient of its own loss.

Alternating recipes give the critic several steps per step of the generator. Here the critic has a higher learning rate
instead (:data:`GENERATOR_LR_RATIO`; two time-scale update rule, Heusel et al. 2017, arXiv 1706.08500), because training
diverges if the generator learns faster than the critic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

GENERATOR_LR_RATIO = 0.1
"""Learning rate of a generator divided by that of its critic."""
_PENALTY = 10.0  # weight of the gradient penalty (WGAN-GP, Gulrajani et al. 2017, arXiv 1704.00028)


class ResidualBlock(nn.Module):
    """x + convolution(PReLU(convolution(x))) with reflection padding."""

    def __init__(self, channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        first, second = (same_conv(channels, channels, kernel, bias=bias) for _ in range(2))
        self.body = nn.Sequential(first, nn.PReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Critic(nn.Module):
    """Critic of images (B, 3, H, W) with one score per pixel (B, 1, H, W): residual blocks without normalisation."""

    def __init__(self, width: int, blocks: int, *, gain: float = 1.0) -> None:
        """
        Args:
            width: Number of channels.
            blocks: Number of residual blocks.
            gain: Factor on the input; use it for noise images, which are small.
        """
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
    """Create a convolution that keeps the size, with reflection padding."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)


def generator_loss(critic: nn.Module, fake: Tensor) -> Tensor:
    """Return -critic(fake) with detached parameters of the critic, for the gradient of the generator."""
    detached = {name: p.detach() for name, p in critic.named_parameters()}
    return -functional_call(critic, detached, (fake,)).mean()


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of the critic with gradient penalty (WGAN-GP, algorithm 1), and its preference for real images.

    Args:
        critic: The critic.
        real: Real images (B, 3, H, W).
        fake: Generated images of the same shape; detached.
        weights: Interpolation weights (B,) in [0, 1) of the images at which the gradient is penalised.
    """
    fake = fake.detach()
    preference = critic(real).mean() - critic(fake).mean()
    between = torch.lerp(fake, real, weights[:, None, None, None].to(fake)).requires_grad_(True)
    # Sum over n pixels divided by sqrt(n): the gradient norm of a local critic is then independent of the crop size.
    scores = critic(between).flatten(1)
    score = (scores.sum(1) / scores.shape[1] ** 0.5).sum()
    (gradient,) = torch.autograd.grad(score, between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return _PENALTY * penalty - preference, preference.detach()
