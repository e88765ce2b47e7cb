"""Training of Flow-sRGB: bits per dimension of dequantised noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pngmodel.baselines.flow_srgb.flow import FlowSRGB, described
from pngmodel.training.objective import Figures, Pictures, strength
from pngmodel.training.random import normal, uniforms
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

_LEVELS = 255


class FlowSRGBObjective(nn.Module):
    """Negative log-likelihood in bits per value of 8-bit noise; a crop is its own reference."""

    name = "flow_srgb"

    def __init__(self, flow: FlowSRGB, settings: StageSettings) -> None:
        super().__init__()
        self.flow = flow.requires_grad_(True)
        self._seed = settings.seed

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Figures]:
        """Loss of pairs (B, 3, s, s) in [0, 1]."""
        spread = uniforms("dequantise", self._seed, numbers, tuple(noisy.shape[1:]), noisy.device)
        noise = noisy - clean + (spread - 0.5) / _LEVELS
        nats = -self.flow.log_likelihood(noise, clean, described(noise, clean)).mean() / noise[0].numel()
        return nats / math.log(2) + math.log2(_LEVELS), {}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Real noise and what the flow draws for it."""
        real = batch.noisy - batch.clean
        shape = (real.shape[1] * 4, real.shape[2] // 2, real.shape[3] // 2)
        z = normal("pictures", self._seed, batch.numbers, shape, real.device)
        drawn = self.flow.inverse(z, batch.clean, described(real, batch.clean))
        return Pictures({"real": real, "drawn": drawn}, strength(real, drawn))

    def compile(self) -> None:
        """Compile the flow in place."""
        self.flow.compile()
