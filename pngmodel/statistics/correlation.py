"""Correlation of noise: local maps by box filters, and the statistics of a whole sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_VARIANCE_FLOOR = 1e-8


def local_correlation(noise: Tensor, size: int = 5, window: int = 9, stride: int = 1) -> Tensor:
    """Return (B, size**2, H/stride, W/stride) correlations in [-1, 1] of each pixel with its size x size neighbours.

    The correlation at a pixel is Pearson's over the ``window`` x ``window`` pixels around it, pooled over
    the colours of ``noise`` (B, C, H, W), between the noise and the noise shifted by (dy, dx); offsets run
    row by row and the centre map is 1. Beyond the image its border is repeated. With a ``stride`` only every
    stride-th pixel of each row and column is evaluated.

    The paper's local prompt block with a window (method.md 2) in place of the three colours of one pixel.
    Only the centre row of the size**2 x size**2 matrix is formed, and of it only half: a pixel's products with its
    right neighbour are those of the neighbour with its left one, so 12 product maps make 25 correlations.
    """
    reach, margin = size // 2, window // 2
    height, width = noise.shape[-2:]
    # Products at every place that a window around a pixel or around its neighbour covers, and one reach further.
    pad = margin + 2 * reach
    x = noise.float()
    # Pearson does not see a common offset, and without it no digits cancel.
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
            else:  # seen from the neighbour
                product = around(2 + forward.index((-dy, -dx)), dy, dx)
            other_scale = (other_square - other.square()).clamp(min=_VARIANCE_FLOOR).rsqrt()
            maps.append(((product - mean * other) * scale * other_scale).clamp(-1, 1))
    return torch.stack(maps, 1)


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Means over window x window, (B, C, H, W) -> (B, C, H - window + 1, W - window + 1)."""
    return _running_sum(_running_sum(x, window, -1), window, -2) / window**2


def _running_sum(x: Tensor, window: int, dim: int) -> Tensor:
    """Sums of ``window`` neighbours along an axis, by doubling: 4 additions for 9. No cumulated sum: it cancels."""
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
"""Length of :func:`correlation_statistics`: 36 within colours, 27 between them."""


def correlation_statistics(noise: Tensor) -> Tensor:
    """Correlations of a whole noise sample (B, 3, H, W), at least 8 x 8 -> (B, 63) in [-1, 1].

    First each colour with itself at the 12 offsets of a 5 x 5 square that are not their own mirror image, then
    each pair of colours at the 9 offsets of a 3 x 3 square. They take the place of the 28 statistics of the
    feasibility probe (method.md 4b).
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
