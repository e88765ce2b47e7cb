"""Training of C2N: WGAN-GP between noisy images of some pairs and clean images, made noisy, of others."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pngmodel.baselines.adversarial import PACE, Critic, critic_loss, generator_loss
from pngmodel.baselines.c2n.network import C2N, Randomness
from pngmodel.errors import UserError
from pngmodel.training.objective import Figures, Pictures, strength
from pngmodel.training.random import normal, uniform, uniforms
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

# Weight of the noise's mean over a batch. The released .01 belongs to a critic whose slope is the root of the number of
# pixels smaller, which for crops of 96 is 96 times.
_STABLE = 1.0


class C2NObjective(nn.Module):
    """Critic's loss plus generator's loss, each with the gradient of its own network only.

    Simultaneous instead of alternating (see :mod:`pngmodel.baselines.adversarial`). Unpaired: of every two samples the
    first gives its clean image and the second its noisy one.
    """

    name = "c2n"
    lr_multipliers: ClassVar[dict[str, float]] = {"network.": PACE}

    def __init__(self, network: C2N, settings: StageSettings) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self.critic = Critic(network.config.critic_width, network.config.critic_blocks)
        self._seed = settings.seed

    def _drawn(self, numbers: Tensor, clean: Tensor, purpose: str) -> Randomness:
        config, device = self.network.config, clean.device
        shape = (config.width, *clean.shape[-2:])
        return Randomness(
            normal(f"{purpose} image", self._seed, numbers, (config.randomness,), device),
            normal(f"{purpose} dependent", self._seed, numbers, shape, device),
            uniforms(f"{purpose} independent", self._seed, numbers, shape, device),
        )

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Figures]:
        """Loss of pairs (B, 3, s, s) in [0, 1], B at least 2; ``preference`` estimates the Wasserstein distance."""
        half = len(noisy) // 2
        if not half:
            raise UserError("c2n: a device sees one sample at a time, but a step needs two; give a larger batch")
        clean, real, numbers = clean[: 2 * half : 2], noisy[1 : 2 * half : 2], numbers[: 2 * half : 2]
        noise = self.network(clean, self._drawn(numbers, clean, "train"))
        fake = clean + noise
        judged, preference = critic_loss(self.critic, real, fake, uniform("penalty", self._seed, numbers))
        stable = noise.mean((0, 2, 3)).abs().mean()
        loss = judged + generator_loss(self.critic, fake) + _STABLE * stable
        return loss, {"preference": preference, "drawn_std": noise.detach().std()}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Real noise and what the generator makes for the same clean images, which it was not shown the noise of."""
        real = batch.noisy - batch.clean
        drawn = self.network(batch.clean, self._drawn(batch.numbers, batch.clean, "pictures"))
        return Pictures({"real": real, "drawn": drawn}, strength(real, drawn))

    def compile(self) -> None:
        """Compile the generator in place; the critic is called in a way that a compiled module cannot be."""
        self.network.compile()
