"""Gaussian noise with the reference's level against intensity AND its correlation in space and colour.

The strongest generator that needs no training; a learned one has to beat it.
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
    """Whitened noise's joint colour autocorrelation up to 7 lags, imposed on white noise; then the curves.

    ``moments`` puts mean and std back, ``quantiles`` the whole distribution against intensity (skew, tails).
    """

    prompt_names = frozenset({"knots", "values", "correlation"})

    def __init__(self, kind: Literal["moments", "quantiles"] = "moments") -> None:
        self.kind: Literal["moments", "quantiles"] = kind
        self.name = "spectrum_matched" if kind == "moments" else "spectrum_matched_quantiles"

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Of one pair (C, H, W) in [0, 1]: the curves, and ``correlation`` (C, C, 15, 15) of the whitened noise."""
        noisy, clean = noisy.cpu(), clean.cpu()
        curves = whitening.fit(self.kind, noisy, clean)
        return curves | {"correlation": correlations(whitening.whiten(self.kind, curves, noisy, clean))}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Correlated noise (C, H, W) with the curves put on."""
        field = correlated_field(shaping_filter(prompts["correlation"]), clean.shape[-2], clean.shape[-1], seed)
        return whitening.unwhiten(self.kind, prompts, field, clean)
