"""Joint spectrum of noise in space and colour: estimation, sampling, and filters between spectra."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.seeds import generator

REACH = 7  # maximum lag in each direction: a window of 15 x 15
PHASES = 2  # period of a Bayer pattern, pixels
_GRID = 64  # frequencies per axis and width of filters, wide enough for the root of a 15 x 15 window to decay
_FAST_LENGTH = 16  # FFT lengths are padded to multiples of this number
_PAIRS_PER_CALL = 1 << 19  # complex numbers, 8 MB
_SMALLEST_STD = 1e-6
_ROOT_GRID = 32  # sufficient for a tapered window
_WEAKEST = 0.002  # lower limit of a tapered density relative to its mean
_LARGEST_RESPONSE = 1 << 22  # complex numbers, 32 MB: an image of about 400 x 400 with polyphase filters
_SMALLEST_SHARE = 0.02  # lower limit of a density relative to its mean, to limit amplification


def to_phases(u: Tensor) -> Tensor:
    """Convert (C, H, W) to (4 C, H/2, W/2), with one channel per phase of the 2 x 2 Bayer pattern.

    Demosaiced noise is not stationary: its variance and correlation have a period of two pixels. With phases as
    channels it has a joint spectrum.
    """
    return F.pixel_unshuffle(u, PHASES)


def from_phases(u: Tensor) -> Tensor:
    """Invert :func:`to_phases`."""
    return F.pixel_shuffle(u, PHASES)


def covariances(u: Tensor, reach: int = REACH, half: int = REACH) -> Tensor:
    """Return the covariances of channels of (C, H, W) at all lags: (C, C, 2 half + 1, 2 half + 1).

    Entry [c, d, half + dy, half + dx] is the covariance of channel c at p with channel d at p + (dy, dx), averaged over
    all pixels p with that neighbour. Lags beyond ``reach`` are 0.
    """
    channels, height, width = u.shape
    x = u.double() - u.double().mean(dim=(1, 2), keepdim=True)
    rows, columns = min(reach, height - 1), min(reach, width - 1)
    dy, dx = torch.arange(rows + 1), torch.arange(-columns, columns + 1)
    # Correlation theorem with zero padding against wrap-around, with an inverse transform for the required lags only.
    size = (_padded(height + rows), _padded(width + columns))
    source = torch.fft.rfft2(x, s=size)
    to_rows, to_columns = _inverse_at(0, rows, size[0]), _inverse_at(-columns, columns, size[1], half=True)
    window = torch.zeros(channels, channels, 2 * half + 1, 2 * half + 1, dtype=torch.float64)
    neighbours = (height - dy)[:, None] * (width - dx.abs())
    # In chunks of channels, to limit memory for large images.
    chunk = max(1, _PAIRS_PER_CALL // source.numel())
    for first in range(0, channels, chunk):
        pairs = source[first : first + chunk, None].conj() * source
        sums = (to_rows @ (pairs @ to_columns.T)).real
        window[first : first + chunk, :, half : half + rows + 1, half - columns : half + columns + 1] = (
            sums / neighbours
        )
    window[:, :, :half] = window.flip(2, 3).transpose(0, 1)[:, :, :half]
    return window.float()


def _padded(length: int) -> int:
    """Smallest fast FFT length that is at least ``length``."""
    return -(-length // _FAST_LENGTH) * _FAST_LENGTH


@lru_cache(maxsize=32)
def _inverse_at(first: int, last: int, length: int, half: bool = False) -> Tensor:
    """Rows ``first`` to ``last`` of the inverse DFT matrix of an even length, complex.

    With ``half``, only for the non-negative frequencies of a real transform, with their multiplicities.
    """
    angles = 2 * torch.pi / length * (torch.arange(first, last + 1)[:, None] * torch.arange(length)).double()
    rows = torch.polar(torch.full_like(angles, 1 / length), angles)
    if not half:
        return rows
    multiplicity = torch.full((length // 2 + 1,), 2.0, dtype=torch.float64)
    multiplicity[[0, -1]] = 1
    return rows[:, : length // 2 + 1] * multiplicity


def within(window: Tensor, reach: int) -> Tensor:
    """Return a window of covariances with lags beyond ``reach`` set to 0."""
    lags = torch.arange(window.shape[-1]) - window.shape[-1] // 2
    near = lags.abs() <= reach
    return window * (near[:, None] & near[None])


def correlations(u: Tensor) -> Tensor:
    """Return the correlations of channels at all lags, (C, C, 15, 15) in [-1, 1]; see :func:`covariances`."""
    window = covariances(u)
    std = window[..., REACH, REACH].diagonal().clamp(min=_SMALLEST_STD**2).sqrt()
    return (window / (std[:, None] * std[None])[..., None, None]).clamp(-1, 1)


def _density(window: Tensor, grid: int = _GRID) -> Tensor:
    """Cross-spectral density (grid, grid / 2 + 1, C, C) of a window; the density of A x white noise is A A*."""
    half = window.shape[-1] // 2
    lags = torch.arange(-half, half + 1) % grid
    padded = torch.zeros(*window.shape[:2], grid, grid, dtype=torch.float64)
    padded[:, :, lags[:, None], lags[None]] = window.double()
    # Transposed, because A A* conjugates its second channel, and the lag is applied to the second channel.
    density = torch.fft.rfft2(padded).movedim((1, 0), (-2, -1))
    # Average with the adjoint, to remove rounding errors.
    averaged: Tensor = (density + density.mH) / 2
    return averaged


def _power(density: Tensor, exponent: float, floor: float = 0.0) -> Tensor:
    """Matrix power at every frequency. Eigenvalues, which truncation can make negative, are limited to ``floor``."""
    values, vectors = torch.linalg.eigh(density)
    result: Tensor = (vectors * values.clamp(min=floor)[..., None, :] ** exponent) @ vectors.mH
    return result


def _roots(density: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """:func:`_power` with exponents 1/2 and -1/2."""
    values, vectors = torch.linalg.eigh(density)
    values = values.clamp(min=floor)[..., None, :]
    return (vectors * values**0.5) @ vectors.mH, (vectors * values**-0.5) @ vectors.mH


def _taps(response: Tensor) -> Tensor:
    grid = response.shape[0]
    return torch.fft.irfft2(response.movedim((-2, -1), (0, 1)), s=(grid, grid))


def shaping_filter(correlation: Tensor) -> Tensor:
    """Return a filter (C, C, 64, 64) that converts white noise to noise with these correlations and unit variance.

    Its response is the Hermitian square root of the density, rescaled because of limited eigenvalues. The tap at lag
    (dy, dx) is stored at index modulo 64.
    """
    taps = _taps(_power(_density(correlation), 0.5))
    gain = taps.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    filters: Tensor = (taps / gain.clamp(min=_SMALLEST_STD)).float()
    return filters


def decorrelating_filter(covariance: Tensor) -> Tensor:
    """Return the filter G^-1/2 (C, C, 32, 32) that converts noise with about these covariances to unit white noise.

    G is the density of the tapered covariances, which is smooth and non-negative, so that its relative error is limited
    at weak frequencies. Tapering makes correlations slightly too small.
    """
    return _root_filter(covariance, -0.5)


def colouring_filter(covariance: Tensor) -> Tensor:
    """Return the filter G^1/2 (C, C, 32, 32), the inverse of :func:`decorrelating_filter`."""
    return _root_filter(covariance, 0.5)


def _root_filter(covariance: Tensor, exponent: float) -> Tensor:
    density = _density(covariance * _taper(covariance), _ROOT_GRID)
    floor = _WEAKEST * float(density.diagonal(dim1=-2, dim2=-1).real.mean())
    return _taps(_power(density, exponent, floor)).float()


def _taper(covariance: Tensor) -> Tensor:
    """Lag window over the non-zero lags: the autocorrelation of a Hann window, whose spectrum is non-negative."""
    half = covariance.shape[-1] // 2
    known = covariance.abs().amax(dim=(0, 1, 2))[half:].nonzero()
    reach = int(known.max()) if len(known) else 0
    window = torch.sin(torch.pi * (torch.arange(reach + 1, dtype=torch.float64) + 0.5) / (reach + 1)) ** 2
    line = F.conv1d(window[None, None], window[None, None], padding=reach)[0, 0]
    line = F.pad((line / line.max()).float(), (half - reach, half - reach))
    return torch.outer(line, line)


def transport_filter(source: Tensor, target: Tensor) -> Tensor:
    """Return a filter (C, C, 64, 64) that converts noise with covariances ``source`` to noise with ``target``.

    It is the optimal transport map of Gaussian fields, T = S^-1/2 (S^1/2 G S^1/2)^1/2 S^-1/2, with the densities S of
    ``source`` and G of ``target``, which changes the field least in the mean square.
    """
    source_density, target_density = _density(source), _density(target)
    floor = _SMALLEST_SHARE * float(source_density.diagonal(dim1=-2, dim2=-1).real.mean())
    root, inverse = _roots(source_density, floor)
    return _taps(inverse @ _power(root @ target_density @ root, 0.5) @ inverse).float()


def colour_matched(noise: Tensor, covariance: Tensor) -> Tensor:
    """Transform noise (C, H, W) to mean 0 and exactly the channel covariance (C, C), by optimal transport."""
    x = noise - noise.mean(dim=(1, 2), keepdim=True)
    flat = x.flatten(1).double()
    # Decompose the small matrices on the CPU.
    source, target = (flat @ flat.T / flat.shape[1]).cpu(), covariance.cpu().double()
    floor = _SMALLEST_STD**2
    root, inverse = _roots(source, floor)
    matrix = inverse @ _power(root @ target @ root, 0.5) @ inverse
    return torch.einsum("cd,dhw->chw", matrix.to(x), x)


def correlated_field(taps: Tensor, height: int, width: int, seed: int) -> Tensor:
    """Sample a stationary Gaussian field (C, height, width) of unit variance."""
    # Enlarge the white field by the filter, crop the wrap-around, and use fast FFT lengths.
    rows, columns = (-(-(side + taps.shape[-1]) // 32) * 32 for side in (height, width))
    white = torch.randn((taps.shape[0], rows, columns), generator=generator(seed))
    half = taps.shape[-1] // 2
    return _convolve(white, taps)[:, half : half + height, half : half + width]


def filtered(field: Tensor, taps: Tensor, response: Tensor | None = None) -> Tensor:
    """Apply a filter to a field (C, H, W) with reflection padding.

    Args:
        field: The field.
        taps: The filter.
        response: Result of :func:`response` for the filter and the size of the field, if available.
    """
    half = taps.shape[-1] // 2
    height, width = field.shape[-2:]
    rows, columns = (_mirrored(side, half) for side in (height, width))
    extended = field.index_select(1, rows.to(field.device)).index_select(2, columns.to(field.device))
    return _convolve(extended, taps, response)[:, half : half + height, half : half + width]


def response(taps: Tensor, height: int, width: int) -> Tensor | None:
    """Return the frequency response of a filter for :func:`filtered` with height x width; None if it is too large."""
    rows, columns = (side + 2 * (taps.shape[-1] // 2) for side in (height, width))
    if taps.shape[0] * taps.shape[1] * rows * (columns // 2 + 1) > _LARGEST_RESPONSE:
        return None
    found = torch.empty(*taps.shape[:2], rows, columns // 2 + 1, dtype=torch.complex64, device=taps.device)
    for channel, row in enumerate(taps):
        found[channel] = _transformed(row, rows, columns)
    return found


def _mirrored(length: int, margin: int) -> Tensor:
    """Indices of a line with reflection padding, for margins of any length."""
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
        # one channel at a time, to limit memory for large images
        kernel = _transformed(row, rows, columns) if response is None else response[channel]
        out[channel] = torch.fft.irfft2((kernel * source).sum(0), s=(rows, columns))
    return out


def _transformed(row: Tensor, rows: int, columns: int) -> Tensor:
    """Fourier transform (C, rows, columns / 2 + 1) of the filters (C, grid, grid) of one output channel."""
    grid = row.shape[-1]
    lags = torch.arange(grid, device=row.device) - grid // 2
    kernel = torch.zeros(row.shape[0], rows, columns, device=row.device)
    kernel[:, (lags % rows)[:, None], (lags % columns)[None]] = row[:, (lags % grid)[:, None], (lags % grid)[None]]
    return torch.fft.rfft2(kernel)
