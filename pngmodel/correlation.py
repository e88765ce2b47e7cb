"""Local correlation maps: Pearson correlation of every pixel with its neighbours, by box filters."""

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
