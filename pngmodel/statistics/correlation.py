"""Correlations of noise: local maps by box filters, and statistics of a whole sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_VARIANCE_FLOOR = 1e-8


def local_correlation(noise: Tensor, size: int = 5, window: int = 9, stride: int = 1) -> Tensor:
    """Return the correlations of each pixel with its size x size neighbours.

    Each value is the Pearson correlation between the noise and the noise shifted by (dy, dx), over a window around the
    pixel, pooled over channels. This differs from the local prompt block of PNG (CVPR 2026, arXiv 2603.04870), which
    pools over the three channels of one pixel only. Because the product of a pixel with its right neighbour equals that
    of the neighbour with its left one, 12 product maps are sufficient for 25 correlations.

    Args:
        noise: Noise (B, C, H, W); padded by edge replication.
        size: Side of the square of neighbours, odd.
        window: Side of the window, odd, pixels.
        stride: Evaluate every stride-th pixel of rows and columns.

    Returns:
        Correlations (B, size**2, H/stride, W/stride) in [-1, 1], offsets in row-major order; 1 at the centre offset.
    """
    reach, margin = size // 2, window // 2
    height, width = noise.shape[-2:]
    # Compute products at all positions covered by windows around pixels and around their neighbours.
    pad = margin + 2 * reach
    x = noise.float()
    # Remove the mean, which does not affect correlations, to avoid cancellation.
    x = x - x.mean(dim=(1, 2, 3), keepdim=True)
    x = F.pad(x, (pad, pad, pad, pad), mode="replicate")
    rows, columns = height + 2 * (margin + reach), width + 2 * (margin + reach)
    centre = x[..., reach : reach + rows, reach : reach + columns]

    def shifted(dy: int, dx: int) -> Tensor:
        return x[..., reach + dy : reach + dy + rows, reach + dx : reach + dx + columns]

    forward = [(dy, dx) for dy in range(reach + 1) for dx in range(-reach, reach + 1) if (dy, dx) > (0, 0)]
    products = [centre.mean(1), centre.square().mean(1)]
    products += [(centre * shifted(dy, dx)).mean(1) for dy, dx in forward]
    boxes = _box_mean(torch.stack(products, 1), window)  # (B, 14, H + 2 reach, W + 2 reach)

    def around(index: int, dy: int, dx: int) -> Tensor:
        """Window means of a product, windows centred (dy, dx) from each evaluated pixel."""
        top, left = reach + dy, reach + dx
        return boxes[:, index, top : top + height : stride, left : left + width : stride]

    mean, square = around(0, 0, 0), around(1, 0, 0)
    scale = (square - mean.square()).clamp(min=_VARIANCE_FLOOR).rsqrt()
    maps = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            other, other_square = around(0, dy, dx), around(1, dy, dx)
            if (dy, dx) == (0, 0):
                product = square
            elif (dy, dx) > (0, 0):
                product = around(2 + forward.index((dy, dx)), 0, 0)
            else:  # the product with the opposite offset, at the neighbour
                product = around(2 + forward.index((-dy, -dx)), dy, dx)
            other_scale = (other_square - other.square()).clamp(min=_VARIANCE_FLOOR).rsqrt()
            maps.append(((product - mean * other) * scale * other_scale).clamp(-1, 1))
    return torch.stack(maps, 1)


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Means over window x window pixels of (B, C, H, W): (B, C, H - window + 1, W - window + 1)."""
    return _running_sum(_running_sum(x, window, -1), window, -2) / window**2


def _running_sum(x: Tensor, window: int, dim: int) -> Tensor:
    """Sums of ``window`` neighbours along an axis, by doubling, because cumulative sums suffer from cancellation."""
    length = x.shape[dim] - window + 1
    parts, covered, sums, span = None, 0, x, 1
    while True:
        if window & span:
            piece = sums.narrow(dim, covered, length)
            parts = piece if parts is None else parts + piece
            covered += span
        if covered == window:
            return parts if parts is not None else x
        sums = sums.narrow(dim, 0, sums.shape[dim] - span) + sums.narrow(dim, span, sums.shape[dim] - span)
        span *= 2


_REACH, _CROSS_REACH = 2, 1
STATISTICS = 3 * (((2 * _REACH + 1) ** 2) // 2) + 3 * (2 * _CROSS_REACH + 1) ** 2
"""Number of values of :func:`correlation_statistics`: 36 within channels and 27 between channels."""


def correlation_statistics(noise: Tensor) -> Tensor:
    """Return correlations (B, 63) in [-1, 1] of noise samples (B, 3, H, W), at least 8 x 8 pixels.

    First the autocorrelations of each channel at the 12 offsets of one half of a 5 x 5 square, then the correlations of
    each pair of channels at the 9 offsets of a 3 x 3 square.
    """
    x = noise.float()
    x = x - x.mean(dim=(2, 3), keepdim=True)
    std = x.square().mean(dim=(2, 3)).clamp(min=_VARIANCE_FLOOR).sqrt()
    height, width = x.shape[-2:]

    def moment(a: int, b: int, dy: int, dx: int) -> Tensor:
        rows, columns = slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx))
        shifted_rows = slice(max(0, dy), height - max(0, -dy))
        shifted_columns = slice(max(0, dx), width - max(0, -dx))
        product = (x[:, a, rows, columns] * x[:, b, shifted_rows, shifted_columns]).mean(dim=(1, 2))
        return product / (std[:, a] * std[:, b])

    within = [
        moment(c, c, dy, dx)
        for c in range(3)
        for dy in range(_REACH + 1)
        for dx in range(-_REACH, _REACH + 1)
        if (dy, dx) > (0, 0)
    ]
    reach = range(-_CROSS_REACH, _CROSS_REACH + 1)
    between = [moment(a, b, dy, dx) for a, b in ((0, 1), (0, 2), (1, 2)) for dy in reach for dx in reach]
    return torch.stack([*within, *between], dim=1).clamp(-1, 1)
