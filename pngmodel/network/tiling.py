"""Overlapping tiles: run a model of fixed field on images of any size without visible seams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length``; the last one ends flush with the border."""
    if length <= tile:
        return [0]
    positions = list(range(0, length - tile, tile - overlap))
    return [*positions, length - tile]


def _ramp(positions: list[int], index: int, size: int, length: int) -> Tensor:
    """Weights of one tile along one axis: linear over the overlap with each neighbour, 1 elsewhere."""
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
    """Assemble (..., height, width) from ``run(corners, tile height, tile width)`` -> (n, ..., th, tw).

    Neighbouring tiles must agree in their overlap (they do when they start from the same random field), so
    the linear crossfade loses next to no variance.
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
