"""White Gaussian noise whose mean and standard deviation depend on the clean intensity."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.baselines.base import Baseline
from pngmodel.interface import Prompts
from pngmodel.seeds import generator
from pngmodel.statistics import whitening


class Heteroscedastic(Baseline):
    """Signal-dependent Gaussian noise with the mean and std curves of the reference, white in space and colour."""

    name = "heteroscedastic"
    prompt_names = frozenset({"knots", "values"})

    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the curves of a pair (C, H, W) in [0, 1]: ``knots`` (C, K), ``values`` (C, K, 2)."""
        return whitening.fit("moments", noisy.cpu(), clean.cpu())

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return white noise (C, H, W) scaled and shifted by the curves."""
        white = torch.randn(clean.shape, generator=generator(seed))
        return whitening.unwhiten("moments", prompts, white, clean)
