"""Correlation of noise: local maps by box filters, and the statistics of a whole sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_VARIANCE_FLOOR = 1e-8


def _box_mean(x: Tensor, window: int, stride: int) -> Tensor:
    # Normalised by the pixels really inside, so that the border is not pulled to zero.
    return F.avg_pool2d(x, window, stride=stride, padding=window // 2, count_include_pad=False)


def local_correlation(noise: Tensor, size: int = 5, window: int = 9, stride: int = 1) -> Tensor:
    """Return (B, size**2, H/stride, W/stride) correlations in [-1, 1] of each pixel with its size x size neighbours.

    The correlation at a pixel is Pearson's over the ``window`` x ``window`` pixels around it, pooled over
    the colours of ``noise`` (B, C, H, W), between the noise and the noise shifted by (dy, dx); offsets run
    row by row and the centre map is 1. Neighbours outside the image repeat its border. With a ``stride``
    only every stride-th pixel of each row and column is evaluated.

    The paper's local prompt block with a window (method.md 2) in place of the three colours of one pixel.
    Only the centre row of the size**2 x size**2 matrix is formed.
    """
    reach = size // 2
    height, width = noise.shape[-2:]
    x = noise.float()
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    mean_x = _box_mean(x.mean(1, keepdim=True), window, stride)
    var_x = _box_mean(x.square().mean(1, keepdim=True), window, stride) - mean_x.square()
    maps = []
    for dy in range(size):
        for dx in range(size):
            y = padded[..., dy : dy + height, dx : dx + width]
            moments = _box_mean(
                torch.cat(
                    [y.mean(1, keepdim=True), y.square().mean(1, keepdim=True), (x * y).mean(1, keepdim=True)], 1
                ),
                window,
                stride,
            )
            mean_y, square_y, product = moments.split(1, dim=1)
            var_y = square_y - mean_y.square()
            scale = (var_x * var_y).clamp(min=_VARIANCE_FLOOR**2).sqrt()
            maps.append(((product - mean_x * mean_y) / scale).clamp(-1, 1))
    return torch.cat(maps, dim=1)


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
