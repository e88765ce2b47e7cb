"""Training of NeCA-W: regressions of gain and levels, a critic of the correlated noise, and its moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.adversarial import Critic, critic_loss, generator_loss
from pngmodel.baselines.levels import structure
from pngmodel.baselines.neca_w.network import NeCAW
from pngmodel.training.objective import Figures, Pictures, strength
from pngmodel.training.random import normal, uniform
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

_ADVERSARIAL = 0.1  # released weight
_LEVEL, _EVEN = 0.2, 0.02  # of the gain's: released
_WINDOW = 7  # pixels a side of the local std
_SMALLEST_STD = 1e-3  # a quarter of a grey level; locally, 8-bit noise may have none
_UNIT = 0.02  # five grey levels: a mean that is off by so much counts like a std that is off by e
_NOISE_GAIN = 10.0  # noise is a tenth of an image


class NeCAWObjective(nn.Module):
    """Distances of standard deviations, the critic's loss, the generator's, and a mean square of moments.

    Critic and generator learn simultaneously (see :mod:`pngmodel.baselines.adversarial`); the critic sees noise alone.
    """

    name = "neca_w"

    def __init__(self, network: NeCAW, settings: StageSettings) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        config = network.config
        self.critic = Critic(config.critic_width, config.critic_blocks, gain=_NOISE_GAIN)
        self._seed = settings.seed

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Figures]:
        """Loss of pairs (B, 3, s, s) in [0, 1]; the gain is estimated from the noisy image itself, as published."""
        real = noisy - clean
        gain = self.network.gain(noisy)
        white = normal("white", self._seed, numbers, tuple(clean.shape[1:]), clean.device)
        fake, level = self.network(clean, gain, white)
        regressions = (
            _distance(gain, real.std((1, 2, 3))[:, None])
            + _LEVEL * _distance(level, local_std(real))
            + _EVEN * _distance(level, gain[:, :, None, None])
        )
        judged, preference = critic_loss(self.critic, real, fake, uniform("penalty", self._seed, numbers))
        adversarial = judged + _ADVERSARIAL * generator_loss(self.critic, fake)
        moments = F.mse_loss(_moments(fake), _moments(real))
        loss = regressions + adversarial + moments
        ratio = fake.detach().std() / real.std()
        return loss, {"preference": preference, "std_ratio": ratio, "moments": moments.detach()}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Real noise and what is drawn with the gain of its noisy image."""
        real = batch.noisy - batch.clean
        white = normal("pictures", self._seed, batch.numbers, tuple(real.shape[1:]), real.device)
        drawn, _ = self.network(batch.clean, self.network.gain(batch.noisy), white)
        return Pictures({"real": real, "drawn": drawn}, strength(real, drawn))

    def compile(self) -> None:
        """Compile the generating networks in place."""
        self.network.compile()


def _distance(std: Tensor, other: Tensor) -> Tensor:
    """Mean square of the difference of logarithms: stds of weak and of strong noise count alike."""
    return (std.log() - other.clamp(min=_SMALLEST_STD).log()).square().mean()


def local_std(noise: Tensor) -> Tensor:
    """Std of noise (B, C, H, W) in the 7 x 7 pixels around each, fewer at the border."""
    mean, square = (
        F.avg_pool2d(x, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False) for x in (noise, noise**2)
    )
    return (square - mean.square()).clamp(min=1e-10).sqrt()


def _moments(noise: Tensor) -> Tensor:
    """Means of the colours in units of weak noise, logarithms of their stds, correlations, (B, 13)."""
    std, mean = torch.std_mean(noise, (2, 3))
    return torch.cat([mean / _UNIT, structure(noise - mean[..., None, None], std[..., None] + 1e-6)], dim=1)
