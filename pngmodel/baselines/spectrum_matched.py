"""Gaussian noise with the reference's level against intensity AND its correlation in space and colour.

The strongest generator that needs no training; a learned one has to beat it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pngmodel import whitening
from pngmodel.baselines.base import Baseline
from pngmodel.interface import Prompts
from pngmodel.seeds import generator

REACH = 7  # lags kept on either side: a window of 15 x 15
_GRID = 64  # frequencies a side; the filter is as wide, and the root of a 15-wide window has decayed by then
_SMALLEST_STD = 1e-6


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


def correlations(u: Tensor) -> Tensor:
    """Correlation of channel c at p with channel d at p + (dy, dx): (C, C, 15, 15) in [-1, 1], (C, H, W) given.

    Entry [c, d, 7 + dy, 7 + dx]; means over the pixels that have such a neighbour (0 where none has).
    """
    height, width = u.shape[-2:]
    x = u.double() - u.double().mean(dim=(1, 2), keepdim=True)
    # Zero padding keeps the far border from wrapping around into the lags.
    size = (height + REACH, width + REACH)
    spectrum = torch.fft.rfft2(x, s=size)
    products = torch.fft.irfft2(spectrum[:, None].conj() * spectrum[None], s=size)
    lags = torch.arange(-REACH, REACH + 1)
    window = products[:, :, (lags % size[0])[:, None], (lags % size[1])[None]]
    pairs = torch.outer((height - lags.abs()).clamp(min=0), (width - lags.abs()).clamp(min=0))
    covariance = torch.where(pairs > 0, window / pairs.clamp(min=1), 0)
    std = covariance[..., REACH, REACH].diagonal().clamp(min=_SMALLEST_STD**2).sqrt()
    return (covariance / (std[:, None] * std[None])[..., None, None]).clamp(-1, 1).float()


def shaping_filter(correlation: Tensor) -> Tensor:
    """Filter (C, C, 64, 64) that turns white noise into noise with these correlations and unit variance.

    The cross-spectral density matrix S(f), the transform of the window, is Hermitian; its root A with A A* = S
    is the filter's response. A cut window can make eigenvalues slightly negative: they become 0, and the
    variance that this adds is scaled away. The tap at lag (dy, dx) is kept at index modulo 64.
    """
    lags = torch.arange(-REACH, REACH + 1) % _GRID
    window = torch.zeros(*correlation.shape[:2], _GRID, _GRID, dtype=torch.float64)
    window[:, :, lags[:, None], lags[None]] = correlation.double()
    # A A* has the conjugate on its second channel, a correlation at p + (dy, dx) on its first: hence transposed.
    density = torch.fft.rfft2(window).movedim((1, 0), (-2, -1))
    # Averaged with its adjoint: with unequal overlaps, rounding alone separates the two.
    values, vectors = torch.linalg.eigh((density + density.mH) / 2)
    root = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mH
    taps = torch.fft.irfft2(root.movedim((-2, -1), (0, 1)), s=(_GRID, _GRID))
    gain = taps.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    filters: Tensor = (taps / gain.clamp(min=_SMALLEST_STD)).float()
    return filters


def correlated_field(taps: Tensor, height: int, width: int, seed: int) -> Tensor:
    """Gaussian field (C, height, width) of unit variance, stationary up to its border."""
    # The white field is larger by the filter and what wraps around is cut off; whole multiples transform fast.
    rows, columns = (-(-(side + _GRID) // 32) * 32 for side in (height, width))
    white = torch.randn((taps.shape[0], rows, columns), generator=generator(seed))
    lags = torch.arange(_GRID) - _GRID // 2
    placed = (lags % rows)[:, None], (lags % columns)[None]
    source = torch.fft.rfft2(white)
    field = torch.empty_like(white)
    for channel, row in enumerate(taps):
        # One channel at a time: all pairs of a large photograph would not fit into memory.
        kernel = torch.zeros(white.shape)
        kernel[:, placed[0], placed[1]] = row[:, (lags % _GRID)[:, None], (lags % _GRID)[None]]
        field[channel] = torch.fft.irfft2((torch.fft.rfft2(kernel) * source).sum(0), s=(rows, columns))
    half = _GRID // 2
    return field[:, half : half + height, half : half + width]
