"""A large image is drawn in tiles; its noise is the same along their seams as away from them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from pngmodel import NoiseGenerator
from pngmodel.network.tiling import starts

HEIGHT, WIDTH = 1500, 2000


@pytest.fixture(scope="module")
def drawn() -> tuple[NoiseGenerator, np.ndarray]:
    """Noise of the shipped model on a flat grey image of 1500 x 2000, in float."""
    generator = NoiseGenerator.from_pretrained()
    g = torch.Generator().manual_seed(0)
    clean = torch.full((3, 128, 128), 0.5)
    blurred = torch.nn.functional.avg_pool2d(torch.randn(1, 3, 130, 130, generator=g), 3, 1)[0]
    prompts = generator.extract(clean + 0.1 * blurred, clean)
    image = torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    return generator, (generator.sample(image, [prompts], [1])[0] - 0.5).numpy()


def seam_mask(length: int, generator: NoiseGenerator) -> np.ndarray:
    """Lines that lie in the overlap of two tiles."""
    tile, overlap = generator.model.config.tile, generator.model.config.tile_overlap
    found = starts(length, tile, overlap)
    mask = np.zeros(length, bool)
    for a, b in pairwise(found):
        mask[b : a + tile] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1])
def test_strength_and_correlation_are_equal_across_and_away_from_seams(drawn, axis: int) -> None:
    generator, noise = drawn
    lines = np.moveaxis(noise, axis + 1, 1)  # (C, lines, along)
    mask = seam_mask(lines.shape[1], generator)
    assert 0.1 < mask.mean() < 0.9
    std_on, std_off = (lines[:, m].std(axis=(1, 2)) for m in (mask, ~mask))
    np.testing.assert_allclose(std_on / std_off, 1, atol=0.03)

    def neighbour(m: np.ndarray) -> np.ndarray:
        """Correlation of a line with the next one, where the first is in the mask."""
        a, b = lines[:, :-1][:, m[:-1]], lines[:, 1:][:, m[:-1]]
        return np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)])

    np.testing.assert_allclose(neighbour(mask), neighbour(~mask), atol=0.03)


def test_no_line_stands_out(drawn) -> None:
    _, noise = drawn
    for axis in (1, 2):
        profile = noise.std(axis=(0, axis))
        # A line of 1500 or 2000 pixels in three colours: its std varies by about 2 per cent by chance.
        assert np.abs(profile / profile.mean() - 1).max() < 0.12
