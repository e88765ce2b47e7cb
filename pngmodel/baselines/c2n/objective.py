"""Training objective of C2N: WGAN-GP between real noisy images and generated ones of other clean images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pngmodel.baselines.adversarial import GENERATOR_LR_RATIO, Critic, critic_loss, generator_loss
from pngmodel.baselines.c2n.network import C2N, Randomness
from pngmodel.errors import UserError
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.random import normal, uniform, uniforms
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

# Weight of the term on the mean noise of a batch. The released 0.01 is for a critic without the division by
# sqrt(pixels) in critic_loss, which is a factor of 96 for crops of 96 x 96.
_STABLE = 1.0


class C2NObjective(nn.Module):
    """Sum of the losses of critic and generator; see :mod:`pngmodel.baselines.adversarial`.

    The training is unpaired: of every two samples, the clean image of the first and the noisy image of the second are
    used.
    """

    name = "c2n"
    lr_multipliers: ClassVar[dict[str, float]] = {"network.": GENERATOR_LR_RATIO}

    def __init__(self, network: C2N, settings: StageSettings) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self.critic = Critic(network.config.critic_width, network.config.critic_blocks)
        self._seed = settings.seed

    def _randomness(self, numbers: Tensor, clean: Tensor, purpose: str) -> Randomness:
        config, device = self.network.config, clean.device
        shape = (config.width, *clean.shape[-2:])
        return Randomness(
            normal(f"{purpose} image", self._seed, numbers, (config.randomness,), device),
            normal(f"{purpose} dependent", self._seed, numbers, shape, device),
            uniforms(f"{purpose} independent", self._seed, numbers, shape, device),
        )

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Metrics]:
        """Return the loss of pairs (B, 3, s, s) in [0, 1], B >= 2; ``preference`` is about the Wasserstein distance."""
        half = len(noisy) // 2
        if not half:
            raise UserError(
                "c2n: each device gets one sample per step, but at least 2 are required; use a larger batch"
            )
        clean, real, numbers = clean[: 2 * half : 2], noisy[1 : 2 * half : 2], numbers[: 2 * half : 2]
        noise = self.network(clean, self._randomness(numbers, clean, "train"))
        fake = clean + noise
        loss_of_critic, preference = critic_loss(self.critic, real, fake, uniform("penalty", self._seed, numbers))
        stable = noise.mean((0, 2, 3)).abs().mean()
        loss = loss_of_critic + generator_loss(self.critic, fake) + _STABLE * stable
        return loss, {"preference": preference, "generated_std": noise.detach().std()}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Return real noise, and generated noise for the same clean images."""
        real = batch.noisy - batch.clean
        generated = self.network(batch.clean, self._randomness(batch.numbers, batch.clean, "pictures"))
        return Pictures({"real": real, "generated": generated}, noise_comparison(real, generated))

    def compile(self) -> None:
        """Compile the generator in place, but not the critic, because functional_call does not support it."""
        self.network.compile()
