"""Training objective of NeCA-W: regression of gain and noise level, a critic of correlated noise, and its moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.baselines.adversarial import Critic, critic_loss, generator_loss
from pngmodel.baselines.neca_w.network import NeCAW
from pngmodel.baselines.reference_statistics import structure
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.random import normal, uniform
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

_ADVERSARIAL = 0.1  # released weight
_LEVEL, _EVEN = 0.2, 0.02  # released weights relative to that of the gain
_WINDOW = 7  # pixels per side, for the local std
_SMALLEST_STD = 1e-3  # a quarter of a digital number; 8-bit noise may be zero locally
_UNIT = 0.02  # five digital numbers: an error of the mean of this size counts like a factor e of the std
_NOISE_GAIN = 10.0  # scales noise to the range of images


class NeCAWObjective(nn.Module):
    """Sum of errors of standard deviations, losses of critic and generator, and the mean square error of moments.

    Critic and generator are updated simultaneously, see :mod:`pngmodel.baselines.adversarial`. The input of the critic
    is the noise without the image.
    """

    name = "neca_w"

    def __init__(self, network: NeCAW, settings: StageSettings) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        config = network.config
        self.critic = Critic(config.critic_width, config.critic_blocks, gain=_NOISE_GAIN)
        self._seed = settings.seed

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Metrics]:
        """Return the loss of pairs (B, 3, s, s) in [0, 1]; the gain is estimated from the noisy image, as published."""
        real = noisy - clean
        gain = self.network.gain(noisy)
        white = normal("white", self._seed, numbers, tuple(clean.shape[1:]), clean.device)
        fake, level = self.network(clean, gain, white)
        regressions = (
            _distance(gain, real.std((1, 2, 3))[:, None])
            + _LEVEL * _distance(level, local_std(real))
            + _EVEN * _distance(level, gain[:, :, None, None])
        )
        loss_of_critic, preference = critic_loss(self.critic, real, fake, uniform("penalty", self._seed, numbers))
        adversarial = loss_of_critic + _ADVERSARIAL * generator_loss(self.critic, fake)
        moments = F.mse_loss(_moments(fake), _moments(real))
        loss = regressions + adversarial + moments
        ratio = fake.detach().std() / real.std()
        return loss, {"preference": preference, "std_ratio": ratio, "moments": moments.detach()}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Return real noise, and samples with the gain of its noisy image."""
        real = batch.noisy - batch.clean
        white = normal("pictures", self._seed, batch.numbers, tuple(real.shape[1:]), real.device)
        generated, _ = self.network(batch.clean, self.network.gain(batch.noisy), white)
        return Pictures({"real": real, "generated": generated}, noise_comparison(real, generated))

    def compile(self) -> None:
        """Compile the generator networks in place."""
        self.network.compile()


def _distance(std: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of logarithms, which weights weak and strong noise equally."""
    return (std.log() - other.clamp(min=_SMALLEST_STD).log()).square().mean()


def local_std(noise: Tensor) -> Tensor:
    """Return the std of noise (B, C, H, W) in windows of 7 x 7 pixels, smaller at the border."""
    mean, square = (
        F.avg_pool2d(x, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False) for x in (noise, noise**2)
    )
    return (square - mean.square()).clamp(min=1e-10).sqrt()


def _moments(noise: Tensor) -> Tensor:
    """Moments (B, 13): scaled means of the channels, logarithms of their stds, and correlations."""
    std, mean = torch.std_mean(noise, (2, 3))
    return torch.cat([mean / _UNIT, structure(noise - mean[..., None, None], std[..., None] + 1e-6)], dim=1)
