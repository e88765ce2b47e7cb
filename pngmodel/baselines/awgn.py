"""Additive white Gaussian noise with the standard deviation of the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.baselines.base import Baseline
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class Awgn(Baseline):
    """Gaussian noise with mean and standard deviation of the reference per channel, independent of the intensity."""

    name = "awgn"
    prompt_names = frozenset({"mean", "std"})

    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return ``mean`` and ``std`` (C,) of the noise of a pair (C, H, W) in [0, 1]."""
        std, mean = torch.std_mean(noisy.cpu().double() - clean.cpu().double(), dim=(1, 2), correction=0)
        return {"mean": mean.float(), "std": std.float()}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return white noise (C, H, W)."""
        white = torch.randn(clean.shape, generator=generator(seed))
        return prompts["mean"][:, None, None] + prompts["std"][:, None, None] * white
