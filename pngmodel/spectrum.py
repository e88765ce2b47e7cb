"""Joint spectrum of noise in space and colour: measure it, draw it, and carry one over to another."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.seeds import generator

REACH = 7  # lags kept on either side: a window of 15 x 15
_GRID = 64  # frequencies a side; a filter is as wide, and the root of a 15-wide window has decayed by then
_SMALLEST_STD = 1e-6
_SMALLEST_SHARE = 0.02  # of a spectrum's mean: weaker frequencies are not amplified without limit


def covariances(u: Tensor, reach: int = REACH) -> Tensor:
    """Covariance of channel c at p with channel d at p + (dy, dx): (C, C, 15, 15), (C, H, W) given.

    Entry [c, d, 7 + dy, 7 + dx]; means over the pixels that have such a neighbour. Lags beyond ``reach`` are 0.
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
    near = torch.outer(lags.abs() <= reach, lags.abs() <= reach)
    return torch.where((pairs > 0) & near, window / pairs.clamp(min=1), 0).float()


def correlations(u: Tensor) -> Tensor:
    """:func:`covariances` over the channels' stds: (C, C, 15, 15) in [-1, 1]."""
    window = covariances(u)
    std = window[..., REACH, REACH].diagonal().clamp(min=_SMALLEST_STD**2).sqrt()
    return (window / (std[:, None] * std[None])[..., None, None]).clamp(-1, 1)


def _density(window: Tensor) -> Tensor:
    """Cross-spectral density (64, 33, C, C) of a window, in the order in which A A* is the density of A x white."""
    lags = torch.arange(-REACH, REACH + 1) % _GRID
    padded = torch.zeros(*window.shape[:2], _GRID, _GRID, dtype=torch.float64)
    padded[:, :, lags[:, None], lags[None]] = window.double()
    # A A* has the conjugate on its second channel, a correlation at p + (dy, dx) on its first: hence transposed.
    density = torch.fft.rfft2(padded).movedim((1, 0), (-2, -1))
    # Averaged with its adjoint: with unequal overlaps, rounding alone separates the two.
    averaged: Tensor = (density + density.mH) / 2
    return averaged


def _power(density: Tensor, exponent: float, floor: float = 0.0) -> Tensor:
    """Matrix power at every frequency. A cut window can make eigenvalues slightly negative: they become ``floor``."""
    values, vectors = torch.linalg.eigh(density)
    result: Tensor = (vectors * values.clamp(min=floor)[..., None, :] ** exponent) @ vectors.mH
    return result


def _taps(response: Tensor) -> Tensor:
    return torch.fft.irfft2(response.movedim((-2, -1), (0, 1)), s=(_GRID, _GRID))


def shaping_filter(correlation: Tensor) -> Tensor:
    """Filter (C, C, 64, 64) that turns white noise into noise with these correlations and unit variance.

    Its response is the Hermitian root of the density; the variance that clipped eigenvalues add is scaled away.
    The tap at lag (dy, dx) is kept at index modulo 64.
    """
    taps = _taps(_power(_density(correlation), 0.5))
    gain = taps.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    filters: Tensor = (taps / gain.clamp(min=_SMALLEST_STD)).float()
    return filters


def transport_filter(source: Tensor, target: Tensor) -> Tensor:
    """Filter (C, C, 64, 64) that turns noise with covariances ``source`` into noise with ``target``.

    Of all filters that do, the one that changes a Gaussian field least: T = S^-1/2 (S^1/2 G S^1/2)^1/2 S^-1/2.
    """
    have, want = _density(source), _density(target)
    floor = _SMALLEST_SHARE * float(have.diagonal(dim1=-2, dim2=-1).real.mean())
    root, inverse = _power(have, 0.5, floor), _power(have, -0.5, floor)
    return _taps(inverse @ _power(root @ want @ root, 0.5) @ inverse).float()


def correlated_field(taps: Tensor, height: int, width: int, seed: int) -> Tensor:
    """Gaussian field (C, height, width) of unit variance, stationary up to its border."""
    # The white field is larger by the filter and what wraps around is cut off; whole multiples transform fast.
    rows, columns = (-(-(side + _GRID) // 32) * 32 for side in (height, width))
    white = torch.randn((taps.shape[0], rows, columns), generator=generator(seed))
    half = _GRID // 2
    return _convolve(white, taps)[:, half : half + height, half : half + width]


def filtered(field: Tensor, taps: Tensor) -> Tensor:
    """A field (C, H, W) through a filter; beyond its border the field is mirrored."""
    half = _GRID // 2
    height, width = field.shape[-2:]
    rows, columns = (_mirrored(side, half) for side in (height, width))
    return _convolve(field[:, rows[:, None], columns[None]], taps)[:, half : half + height, half : half + width]


def _mirrored(length: int, margin: int) -> Tensor:
    """Indices of a mirrored line with a margin on both sides, also where the margin is longer than the line."""
    if length == 1:
        return torch.zeros(1 + 2 * margin, dtype=torch.long)
    period = 2 * (length - 1)
    index = torch.arange(-margin, length + margin) % period
    return torch.where(index < length, index, period - index)


def _convolve(field: Tensor, taps: Tensor) -> Tensor:
    """Circular convolution of (C, rows, columns) with a filter (C, C, 64, 64)."""
    rows, columns = field.shape[-2:]
    lags = torch.arange(_GRID) - _GRID // 2
    placed = (lags % rows)[:, None], (lags % columns)[None]
    source = torch.fft.rfft2(field)
    out = torch.empty_like(field)
    for channel, row in enumerate(taps):
        # One channel at a time: all pairs of a large photograph would not fit into memory.
        kernel = torch.zeros(field.shape)
        kernel[:, placed[0], placed[1]] = row[:, (lags % _GRID)[:, None], (lags % _GRID)[None]]
        out[channel] = torch.fft.irfft2((torch.fft.rfft2(kernel) * source).sum(0), s=(rows, columns))
    return out
