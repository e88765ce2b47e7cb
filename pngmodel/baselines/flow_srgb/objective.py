"""Training objective of Flow-sRGB: bits per dimension of dequantised noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pngmodel.baselines.flow_srgb.flow import FlowSRGB, reference_conditions
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.random import normal, uniforms
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

_MAX_8BIT = 255


class FlowSRGBObjective(nn.Module):
    """Negative log-likelihood in bits per value of 8-bit noise. Each crop is its own reference."""

    name = "flow_srgb"

    def __init__(self, flow: FlowSRGB, settings: StageSettings) -> None:
        super().__init__()
        self.flow = flow.requires_grad_(True)
        self._seed = settings.seed

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Metrics]:
        """Return the loss of pairs (B, 3, s, s) in [0, 1]."""
        uniform = uniforms("dequantise", self._seed, numbers, tuple(noisy.shape[1:]), noisy.device)
        noise = noisy - clean + (uniform - 0.5) / _MAX_8BIT
        nats = -self.flow.log_likelihood(noise, clean, reference_conditions(noise, clean)).mean() / noise[0].numel()
        return nats / math.log(2) + math.log2(_MAX_8BIT), {}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Return real noise, and samples of the flow with it as the reference."""
        real = batch.noisy - batch.clean
        shape = (real.shape[1] * 4, real.shape[2] // 2, real.shape[3] // 2)
        z = normal("pictures", self._seed, batch.numbers, shape, real.device)
        generated = self.flow.inverse(z, batch.clean, reference_conditions(real, batch.clean))
        return Pictures({"real": real, "generated": generated}, noise_comparison(real, generated))

    def compile(self) -> None:
        """Compile the flow in place."""
        self.flow.compile()
