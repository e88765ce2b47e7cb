"""What a reference is described by: levels against intensity and numbers about structure."""

from __future__ import annotations

import torch

from pngmodel.baselines.reference_statistics import KNOTS, STRUCTURE, at_pixels, noise_levels, structure


def test_levels_follow_intensity() -> None:
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 256, 256, generator=g)
    noise = 0.01 * (clean - 0.5) + (0.02 + 0.08 * clean) * torch.randn(clean.shape, generator=g)
    mean, std = noise_levels(noise, clean)
    assert mean.shape == std.shape == (1, 3, KNOTS)
    knots = torch.linspace(0, 1, KNOTS)
    torch.testing.assert_close(std[0, 0], 0.02 + 0.08 * knots, atol=0.004, rtol=0.05)
    torch.testing.assert_close(at_pixels(mean, clean), 0.01 * (clean - 0.5), atol=0.004, rtol=0)


def test_an_intensity_that_is_not_there_takes_the_overall_level() -> None:
    noise, clean = 0.05 * torch.randn(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.5)
    _, std = noise_levels(noise, clean)
    torch.testing.assert_close(std[..., 0], noise.std((2, 3)), rtol=0.02, atol=0)


def test_reading_at_knots_gives_the_values() -> None:
    values = torch.rand(2, 3, KNOTS)
    clean = torch.linspace(0, 1, KNOTS).expand(2, 3, 1, KNOTS)
    torch.testing.assert_close(at_pixels(values, clean)[:, :, 0], values)


def test_structure_tells_grey_grain_and_rows() -> None:
    grain = torch.randn(1, 1, 64, 64)
    std = torch.full((1, 3, KNOTS), 0.01)
    found = structure(grain.expand(1, 3, 64, 64), std)
    assert found.shape == (1, STRUCTURE)
    torch.testing.assert_close(found[0, :3], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[0, 3:6], torch.ones(3), atol=1e-3, rtol=0)
    assert found[0, 6:].abs().max() < 0.1
    rows = torch.randn(1, 3, 64, 1).expand(1, 3, 64, 64)
    assert (structure(rows, std)[0, [6, 8]] > 0.9).all()  # across, where a row is one value
    assert (structure(rows, std)[0, [7, 9]] < 0.6).all()
