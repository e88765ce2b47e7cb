"""Gaussian noise with the intensity dependence and the correlation in space and colour of the reference.

The strongest stationary baseline without training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pngmodel.baselines.base import Baseline
from pngmodel.interface import Prompts
from pngmodel.statistics import whitening
from pngmodel.statistics.spectrum import correlated_field, correlations, shaping_filter


class SpectrumMatched(Baseline):
    """Filters white noise to the autocorrelation of the whitened reference (up to lag 7), then applies the curves.

    ``moments`` matches mean and std given the intensity, ``quantiles`` the whole distribution (skew, tails).
    """

    prompt_names = frozenset({"knots", "values", "correlation"})

    def __init__(self, kind: Literal["moments", "quantiles"] = "moments") -> None:
        self.kind: Literal["moments", "quantiles"] = kind
        self.name = "spectrum_matched" if kind == "moments" else "spectrum_matched_quantiles"

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the curves of a pair (C, H, W) in [0, 1], and ``correlation`` (C, C, 15, 15) of the whitened noise."""
        noisy, clean = noisy.cpu(), clean.cpu()
        curves = whitening.fit(self.kind, noisy, clean)
        return curves | {"correlation": correlations(whitening.whiten(self.kind, curves, noisy, clean))}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return correlated noise (C, H, W) scaled by the curves."""
        field = correlated_field(shaping_filter(prompts["correlation"]), clean.shape[-2], clean.shape[-1], seed)
        return whitening.unwhiten(self.kind, prompts, field, clean)
