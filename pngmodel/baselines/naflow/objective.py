"""Training objective of NAFlow: bits per dimension of dequantised noisy images, with the Gaussian of their setting."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pngmodel.baselines.naflow.flow import NAFlow, dequantised, labelled
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.random import normal, uniforms
from pngmodel.training.samples import LabelledBatch
from pngmodel.training.settings import StageSettings

_VALUES_8BIT = 256


class NAFlowObjective(nn.Module):
    """Negative log-likelihood in bits per value. Noise is added to the clean condition, as in the paper."""

    name = "naflow"

    def __init__(self, flow: NAFlow, settings: StageSettings) -> None:
        super().__init__()
        self.flow = flow.requires_grad_(True)
        self._seed = settings.seed

    def _condition(self, clean: Tensor, numbers: Tensor) -> Tensor:
        jitter = normal("condition", self._seed, numbers, tuple(clean.shape[1:]), clean.device)
        return (clean + self.flow.config.condition_noise * jitter).clamp(0, 1)

    def forward(
        self, noisy: Tensor, clean: Tensor, numbers: Tensor, setting: Tensor, step: int
    ) -> tuple[Tensor, Metrics]:
        """Return the loss of pairs (B, 3, s, s) in [0, 1], and the accuracy of the most likely setting."""
        uniform = uniforms("dequantise", self._seed, numbers, tuple(noisy.shape[1:]), noisy.device)
        z, logdet = self.flow(dequantised(noisy, uniform), self._condition(clean, numbers))
        likelihoods = self.flow.setting_log_likelihoods(z)
        nats = -(labelled(likelihoods, setting) + logdet).mean() / noisy[0].numel()
        accuracy = (likelihoods.detach().argmax(1) == setting).float().mean()
        return nats / math.log(2) + math.log2(_VALUES_8BIT), {"setting_accuracy": accuracy}

    @torch.no_grad()
    def pictures(self, batch: LabelledBatch) -> Pictures:
        """Return real noise, and samples with it as the reference."""
        condition = self._condition(batch.clean, batch.numbers)
        z, _ = self.flow(batch.noisy, condition)
        _, mean, std = self.flow.noise_aware_prior(z)
        eps = normal("pictures", self._seed, batch.numbers, tuple(z.shape[1:]), z.device)
        generated = self.flow.inverse(mean[..., None, None] + std[..., None, None] * eps, condition) - batch.clean
        real = batch.noisy - batch.clean
        return Pictures({"real": real, "generated": generated}, noise_comparison(real, generated))

    def compile(self) -> None:
        """Compile the flow in place."""
        self.flow.compile()
