"""White Gaussian noise whose mean and std follow the clean image's intensity."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.baselines.base import Baseline
from pngmodel.interface import Prompts
from pngmodel.seeds import generator
from pngmodel.statistics import whitening


class Heteroscedastic(Baseline):
    """Signal-dependent Gaussian noise: the reference's two curves per channel, white in space and colour."""

    name = "heteroscedastic"
    prompt_names = frozenset({"knots", "values"})

    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """The curves of one pair (C, H, W) in [0, 1]: ``knots`` (C, K), ``values`` (C, K, 2)."""
        return whitening.fit("moments", noisy.cpu(), clean.cpu())

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """White noise (C, H, W) with the curves put on."""
        white = torch.randn(clean.shape, generator=generator(seed))
        return whitening.unwhiten("moments", prompts, white, clean)
