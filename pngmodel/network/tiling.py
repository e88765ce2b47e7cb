"""Overlapping tiles: applies a model of fixed input size to images of any size without visible seams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles that cover ``length``; the last tile ends at the border."""
    if length <= tile:
        return [0]
    positions = list(range(0, length - tile, tile - overlap))
    return [*positions, length - tile]


def _ramp(positions: list[int], index: int, size: int, length: int) -> Tensor:
    """Weights of a tile along one axis: a linear ramp in overlaps, 1 elsewhere."""
    start = positions[index]
    weight = torch.ones(size)
    if index > 0:
        shared = positions[index - 1] + size - start
        weight[:shared] *= (torch.arange(shared) + 0.5) / shared
    if index + 1 < len(positions):
        shared = start + size - positions[index + 1]
        weight[size - shared :] *= (shared - torch.arange(shared) - 0.5) / shared
    return weight


def tiled(
    run: Callable[[list[tuple[int, int]], int, int], Tensor],
    height: int,
    width: int,
    tile: int,
    overlap: int,
) -> Tensor:
    """Apply ``run`` to overlapping tiles and blend them to (..., height, width).

    The noise of adjacent tiles must be equal in their overlap, as with a common random field. Otherwise the linear
    blending would reduce its variance.

    Args:
        run: ``run(corners, tile height, tile width)`` returns tiles (n, ..., th, tw) at the corners (y, x).
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        tile: Side of the tiles, pixels.
        overlap: Overlap of adjacent tiles, pixels.
    """
    rows, columns = starts(height, tile, overlap), starts(width, tile, overlap)
    size = (min(tile, height), min(tile, width))
    corners = [(y, x) for y in rows for x in columns]
    tiles = run(corners, *size)
    out = torch.zeros(*tiles.shape[1:-2], height, width, device=tiles.device)
    total = torch.zeros(height, width, device=tiles.device)
    for (y, x), values in zip(corners, tiles, strict=True):
        weight = _ramp(rows, rows.index(y), size[0], height)[:, None] * _ramp(columns, columns.index(x), size[1], width)
        weight = weight.to(tiles.device)
        out[..., y : y + size[0], x : x + size[1]] += weight * values
        total[y : y + size[0], x : x + size[1]] += weight
    return out / total
