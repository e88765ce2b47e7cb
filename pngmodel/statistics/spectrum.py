"""Joint spectrum of noise in space and colour: measure it, draw it, and carry one over to another."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.seeds import generator

REACH = 7  # lags kept on either side: a window of 15 x 15
PHASES = 2  # period of a colour filter array, in pixels
_GRID = 64  # frequencies a side; a filter is as wide, and the root of a 15-wide window has decayed by then
_FAST_LENGTH = 16  # a transform is fast for its multiples, as long as they have no large prime factor
_PAIRS_AT_ONCE = 1 << 19  # complex numbers, 8 MB
_SMALLEST_STD = 1e-6
_ROOT_GRID = 32  # enough for a tapered window
_WEAKEST = 0.002  # of a tapered spectrum's mean: weaker frequencies are not raised to 1
_LARGEST_RESPONSE = 1 << 22  # complex numbers: 32 MB, an image of about 400 x 400 by polyphase filters
_SMALLEST_SHARE = 0.02  # of a spectrum's mean: weaker frequencies are not amplified without limit


def to_phases(u: Tensor) -> Tensor:
    """(C, H, W) -> (4 C, H/2, W/2): a channel for each place in the 2 x 2 pattern of a sensor's colour filters.

    Demosaiced noise is not stationary: its strength and correlation repeat every second pixel. As channels of their
    own, the four places have one joint spectrum that says so.
    """
    return F.pixel_unshuffle(u, PHASES)


def from_phases(u: Tensor) -> Tensor:
    """Inverse of :func:`to_phases`."""
    return F.pixel_shuffle(u, PHASES)


def covariances(u: Tensor, reach: int = REACH, half: int = REACH) -> Tensor:
    """Covariance of channel c at p with channel d at p + (dy, dx): (C, C, 2 half + 1, 2 half + 1), (C, H, W) given.

    Entry [c, d, half + dy, half + dx]; means over the pixels that have such a neighbour. Lags beyond ``reach`` are 0.
    """
    channels, height, width = u.shape
    x = u.double() - u.double().mean(dim=(1, 2), keepdim=True)
    rows, columns = min(reach, height - 1), min(reach, width - 1)
    dy, dx = torch.arange(rows + 1), torch.arange(-columns, columns + 1)
    # Zeros behind the field, so that no lag goes around; by the correlation theorem, at the few lags that are kept.
    size = (_padded(height + rows), _padded(width + columns))
    source = torch.fft.rfft2(x, s=size)
    to_rows, to_columns = _inverse_at(0, rows, size[0]), _inverse_at(-columns, columns, size[1], half=True)
    window = torch.zeros(channels, channels, 2 * half + 1, 2 * half + 1, dtype=torch.float64)
    neighbours = (height - dy)[:, None] * (width - dx.abs())
    # Not all at once: the pairs of channels of a large photograph would not fit into memory.
    at_once = max(1, _PAIRS_AT_ONCE // source.numel())
    for first in range(0, channels, at_once):
        pairs = source[first : first + at_once, None].conj() * source
        sums = (to_rows @ (pairs @ to_columns.T)).real
        window[first : first + at_once, :, half : half + rows + 1, half - columns : half + columns + 1] = (
            sums / neighbours
        )
    window[:, :, :half] = window.flip(2, 3).transpose(0, 1)[:, :, :half]
    return window.float()


def _padded(length: int) -> int:
    """A length of at least this that the Fourier transform is fast for."""
    return -(-length // _FAST_LENGTH) * _FAST_LENGTH


@lru_cache(maxsize=32)
def _inverse_at(first: int, last: int, length: int, half: bool = False) -> Tensor:
    """Rows ``first`` to ``last`` of the inverse Fourier transform of this even length, complex.

    ``half``: of the frequencies that a real transform keeps, each as often as it occurs in the whole one.
    """
    angles = 2 * torch.pi / length * (torch.arange(first, last + 1)[:, None] * torch.arange(length)).double()
    rows = torch.polar(torch.full_like(angles, 1 / length), angles)
    if not half:
        return rows
    occurs = torch.full((length // 2 + 1,), 2.0, dtype=torch.float64)
    occurs[[0, -1]] = 1
    return rows[:, : length // 2 + 1] * occurs


def within(window: Tensor, reach: int) -> Tensor:
    """A window of covariances whose lags beyond ``reach`` are 0."""
    lags = torch.arange(window.shape[-1]) - window.shape[-1] // 2
    near = lags.abs() <= reach
    return window * (near[:, None] & near[None])


def correlations(u: Tensor) -> Tensor:
    """:func:`covariances` over the channels' stds: (C, C, 15, 15) in [-1, 1]."""
    window = covariances(u)
    std = window[..., REACH, REACH].diagonal().clamp(min=_SMALLEST_STD**2).sqrt()
    return (window / (std[:, None] * std[None])[..., None, None]).clamp(-1, 1)


def _density(window: Tensor, grid: int = _GRID) -> Tensor:
    """Cross-spectral density (grid, grid / 2 + 1, C, C) of a window; A A* is that of A x white."""
    half = window.shape[-1] // 2
    lags = torch.arange(-half, half + 1) % grid
    padded = torch.zeros(*window.shape[:2], grid, grid, dtype=torch.float64)
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


def _roots(density: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """:func:`_power` of 1/2 and of -1/2, for the price of one."""
    values, vectors = torch.linalg.eigh(density)
    values = values.clamp(min=floor)[..., None, :]
    return (vectors * values**0.5) @ vectors.mH, (vectors * values**-0.5) @ vectors.mH


def _taps(response: Tensor) -> Tensor:
    grid = response.shape[0]
    return torch.fft.irfft2(response.movedim((-2, -1), (0, 1)), s=(grid, grid))


def shaping_filter(correlation: Tensor) -> Tensor:
    """Filter (C, C, 64, 64) that turns white noise into noise with these correlations and unit variance.

    Its response is the Hermitian root of the density; the variance that clipped eigenvalues add is scaled away.
    The tap at lag (dy, dx) is kept at index modulo 64.
    """
    taps = _taps(_power(_density(correlation), 0.5))
    gain = taps.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    filters: Tensor = (taps / gain.clamp(min=_SMALLEST_STD)).float()
    return filters


def decorrelating_filter(covariance: Tensor) -> Tensor:
    """Filter G^-1/2 (C, C, 32, 32) from noise with about these covariances to white noise of unit variance.

    G is the density of the *tapered* covariances, which is smoothed and never negative: what is weak is then known as
    well, in proportion, as what is strong, and can be divided by. The price: correlations are a little too small.
    """
    return _root_filter(covariance, -0.5)


def colouring_filter(covariance: Tensor) -> Tensor:
    """Inverse of :func:`decorrelating_filter`: G^1/2, (C, C, 32, 32)."""
    return _root_filter(covariance, 0.5)


def _root_filter(covariance: Tensor, exponent: float) -> Tensor:
    density = _density(covariance * _taper(covariance), _ROOT_GRID)
    floor = _WEAKEST * float(density.diagonal(dim1=-2, dim2=-1).real.mean())
    return _taps(_power(density, exponent, floor)).float()


def _taper(covariance: Tensor) -> Tensor:
    """Lag window as wide as the known lags: a Hann window's autocorrelation, whose own spectrum is nowhere negative."""
    half = covariance.shape[-1] // 2
    known = covariance.abs().amax(dim=(0, 1, 2))[half:].nonzero()
    reach = int(known.max()) if len(known) else 0
    window = torch.sin(torch.pi * (torch.arange(reach + 1, dtype=torch.float64) + 0.5) / (reach + 1)) ** 2
    line = F.conv1d(window[None, None], window[None, None], padding=reach)[0, 0]
    line = F.pad((line / line.max()).float(), (half - reach, half - reach))
    return torch.outer(line, line)


def transport_filter(source: Tensor, target: Tensor) -> Tensor:
    """Filter (C, C, 64, 64) that turns noise with covariances ``source`` into noise with ``target``.

    Of all filters that do, the one that changes a Gaussian field least: T = S^-1/2 (S^1/2 G S^1/2)^1/2 S^-1/2.
    """
    have, want = _density(source), _density(target)
    floor = _SMALLEST_SHARE * float(have.diagonal(dim1=-2, dim2=-1).real.mean())
    root, inverse = _roots(have, floor)
    return _taps(inverse @ _power(root @ want @ root, 0.5) @ inverse).float()


def colour_matched(noise: Tensor, covariance: Tensor) -> Tensor:
    """Noise (C, H, W) with mean 0 and exactly this (C, C) covariance of channels, changed as little as possible."""
    x = noise - noise.mean(dim=(1, 2), keepdim=True)
    flat = x.flatten(1).double()
    # Matrices this small are taken apart on the processor, wherever the field lies.
    have, want = (flat @ flat.T / flat.shape[1]).cpu(), covariance.cpu().double()
    floor = _SMALLEST_STD**2
    root, inverse = _roots(have, floor)
    matrix = inverse @ _power(root @ want @ root, 0.5) @ inverse
    return torch.einsum("cd,dhw->chw", matrix.to(x), x)


def correlated_field(taps: Tensor, height: int, width: int, seed: int) -> Tensor:
    """Gaussian field (C, height, width) of unit variance, stationary up to its border."""
    # The white field is larger by the filter and what wraps around is cut off; whole multiples transform fast.
    rows, columns = (-(-(side + taps.shape[-1]) // 32) * 32 for side in (height, width))
    white = torch.randn((taps.shape[0], rows, columns), generator=generator(seed))
    half = taps.shape[-1] // 2
    return _convolve(white, taps)[:, half : half + height, half : half + width]


def filtered(field: Tensor, taps: Tensor, response: Tensor | None = None) -> Tensor:
    """A field (C, H, W) through a filter; beyond its border the field is mirrored.

    ``response`` is what :func:`response` returned for the filter and the size, if it did.
    """
    half = taps.shape[-1] // 2
    height, width = field.shape[-2:]
    rows, columns = (_mirrored(side, half) for side in (height, width))
    extended = field.index_select(1, rows.to(field.device)).index_select(2, columns.to(field.device))
    return _convolve(extended, taps, response)[:, half : half + height, half : half + width]


def response(taps: Tensor, height: int, width: int) -> Tensor | None:
    """A filter at the frequencies of :func:`filtered` fields of height x width, unless that is too large to keep."""
    rows, columns = (side + 2 * (taps.shape[-1] // 2) for side in (height, width))
    if taps.shape[0] * taps.shape[1] * rows * (columns // 2 + 1) > _LARGEST_RESPONSE:
        return None
    found = torch.empty(*taps.shape[:2], rows, columns // 2 + 1, dtype=torch.complex64, device=taps.device)
    for channel, row in enumerate(taps):
        found[channel] = _transformed(row, rows, columns)
    return found


def _mirrored(length: int, margin: int) -> Tensor:
    """Indices of a mirrored line with a margin on both sides, also where the margin is longer than the line."""
    if length == 1:
        return torch.zeros(1 + 2 * margin, dtype=torch.long)
    period = 2 * (length - 1)
    index = torch.arange(-margin, length + margin) % period
    return torch.where(index < length, index, period - index)


def _convolve(field: Tensor, taps: Tensor, response: Tensor | None = None) -> Tensor:
    """Circular convolution of (C, rows, columns) with a filter (C, C, grid, grid)."""
    rows, columns = field.shape[-2:]
    source = torch.fft.rfft2(field)
    out = torch.empty_like(field)
    for channel, row in enumerate(taps):
        # One channel at a time: all pairs of a large photograph would not fit into memory.
        kernel = _transformed(row, rows, columns) if response is None else response[channel]
        out[channel] = torch.fft.irfft2((kernel * source).sum(0), s=(rows, columns))
    return out


def _transformed(row: Tensor, rows: int, columns: int) -> Tensor:
    """Fourier transform (C, rows, columns / 2 + 1) of the filters (C, grid, grid) behind one channel."""
    grid = row.shape[-1]
    lags = torch.arange(grid, device=row.device) - grid // 2
    kernel = torch.zeros(row.shape[0], rows, columns, device=row.device)
    kernel[:, (lags % rows)[:, None], (lags % columns)[None]] = row[:, (lags % grid)[:, None], (lags % grid)[None]]
    return torch.fft.rfft2(kernel)
