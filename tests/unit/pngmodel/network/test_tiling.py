"""Tiles: cover every pixel, weights sum to one, no seam where tiles agree."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pngmodel.network.tiling import starts, tiled

sides = st.integers(1, 20).map(lambda n: 8 * n)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[int, int, int, int]:
    tile = 8 * draw(st.integers(2, 8))
    overlap = 8 * draw(st.integers(0, tile // 16))
    return draw(sides), draw(sides), tile, overlap


@given(tilings())
@settings(max_examples=60, deadline=None)
def test_tiles_cover_fit_and_keep_the_latent_grid(case: tuple[int, int, int, int]) -> None:
    length, _, tile, overlap = case
    found = starts(length, tile, overlap)
    side = min(tile, length)
    covered = sorted({p for s in found for p in range(s, s + side)})
    assert covered == list(range(length))
    assert all(s % 8 == 0 for s in found)
    assert all(a < b for a, b in pairwise(found))
    assert all(b - a <= tile - overlap for a, b in pairwise(found))


@given(tilings())
@example((56, 56, 32, 16))  # three tiles over one pixel: their ramps alone do not sum to one
@settings(max_examples=40, deadline=None)
def test_a_field_cut_into_tiles_comes_back(case: tuple[int, int, int, int]) -> None:
    height, width, tile, overlap = case
    field = torch.randn(2, height, width, generator=torch.Generator().manual_seed(0))

    def run(corners: list[tuple[int, int]], rows: int, columns: int) -> torch.Tensor:
        return torch.stack([field[:, y : y + rows, x : x + columns] for y, x in corners])

    out = tiled(run, height, width, tile, overlap)
    torch.testing.assert_close(out, field, atol=1e-5, rtol=1e-5)


def test_constant_field_has_no_seam() -> None:
    out = tiled(lambda corners, h, w: torch.ones(len(corners), 1, h, w), 200, 88, 64, 16)
    torch.testing.assert_close(out, torch.ones(1, 200, 88), atol=1e-6, rtol=0)


def test_disagreeing_tiles_blend_linearly_over_the_overlap() -> None:
    # Two tiles of 32 that share 16 columns: 0 on the left, 1 on the right.
    def run(corners: list[tuple[int, int]], h: int, w: int) -> torch.Tensor:
        return torch.stack([torch.full((1, h, w), float(x > 0)) for _, x in corners])

    line = tiled(run, 16, 48, 32, 16)[0, 0]
    expected = torch.cat([torch.zeros(16), (torch.arange(16) + 0.5) / 16, torch.ones(16)])
    torch.testing.assert_close(line, expected)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 200), (8, 64)])
def test_smaller_than_a_tile_is_run_once_along_that_side(height: int, width: int) -> None:
    shapes = []

    def run(corners: list[tuple[int, int]], h: int, w: int) -> torch.Tensor:
        shapes.append((len({y for y, _ in corners}), h, w))
        return torch.zeros(len(corners), 1, h, w)

    assert tiled(run, height, width, 64, 16).shape == (1, height, width)
    assert shapes == [(1, height, min(64, width))]
