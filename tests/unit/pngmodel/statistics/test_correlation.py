"""Local correlation against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.statistics.correlation import STATISTICS, correlation_statistics, local_correlation


def brute_force(noise: np.ndarray, size: int, window: int, stride: int) -> np.ndarray:
    """Pearson over window x window pixels and all colours, pixel by pixel; (C, H, W) -> (size**2, h, w)."""
    reach, half = size // 2, window // 2
    _, height, width = noise.shape
    margin = reach + half
    x = np.pad(noise.astype(np.float64), ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    ys, xs = range(0, height, stride), range(0, width, stride)
    out = np.empty((size**2, len(ys), len(xs)))
    for index, (dy, dx) in enumerate(np.ndindex(size, size)):
        for i, r in enumerate(ys):
            for j, c in enumerate(xs):
                here = x[:, r + reach : r + reach + window, c + reach : c + reach + window]
                there = x[:, r + dy : r + dy + window, c + dx : c + dx + window]
                out[index, i, j] = np.corrcoef(here.ravel(), there.ravel())[0, 1]
    return out


@pytest.mark.parametrize(
    ("size", "window", "stride"), [(5, 9, 1), (3, 7, 1), (5, 9, 4), (7, 5, 3), (3, 11, 2), (5, 3, 1)]
)
def test_equals_brute_force_with_borders(correlated, size: int, window: int, stride: int) -> None:
    noise = correlated(17, 22, seed=size)
    found = local_correlation(noise[None], size, window, stride)[0]
    np.testing.assert_allclose(found.numpy(), brute_force(noise.numpy(), size, window, stride), atol=1e-4)


def test_small_noise_on_an_offset_is_still_right(correlated) -> None:
    # Unwhitened noise of a clean camera: std about a level, mean not zero.
    noise = 0.004 * correlated(16, 16) + 0.01
    found = local_correlation(noise[None], 3, 9)[0]
    np.testing.assert_allclose(found.numpy(), brute_force(noise.numpy(), 3, 9, 1), atol=1e-4)


def test_centre_is_one_and_scale_does_not_matter(correlated) -> None:
    noise = correlated(24, 24)[None]
    maps = local_correlation(noise, 5)
    torch.testing.assert_close(maps[:, 12], torch.ones(1, 24, 24), atol=1e-4, rtol=0)
    torch.testing.assert_close(local_correlation(3 * noise, 5), maps, atol=1e-3, rtol=0)


def test_opposite_neighbours_are_mirror_images(correlated) -> None:
    noise = correlated(40, 40)[None]
    maps = local_correlation(noise, 3, 9)[0, :, 8:-8, 8:-8]
    # Correlation with the right neighbour at x is that with the left one at x + 1.
    torch.testing.assert_close(maps[5, :, :-1], maps[3, :, 1:], atol=1e-3, rtol=0)


def test_images_of_a_batch_do_not_mix(correlated) -> None:
    a, b = correlated(16, 16, seed=1), correlated(16, 16, seed=2)
    both = local_correlation(torch.stack([a, b]))
    torch.testing.assert_close(both[1:], local_correlation(b[None]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_noise_stays_finite_and_in_range(value: float) -> None:
    maps = local_correlation(torch.full((1, 3, 16, 16), value))
    assert bool(torch.isfinite(maps).all())
    assert float(maps.abs().max()) <= 1


def test_gradient_is_finite_on_flat_areas() -> None:
    noise = torch.zeros(1, 3, 16, 16)
    noise[..., :8] = torch.randn(1, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    noise.requires_grad_(True)
    local_correlation(noise).square().sum().backward()
    assert bool(torch.isfinite(noise.grad).all())


def test_statistics_of_a_sample_are_pearson_correlations() -> None:
    """Against NumPy in float64: within a colour and between two, at offsets with and without a sign change."""
    noise = torch.randn(2, 3, 200, 220, generator=torch.Generator().manual_seed(5))
    noise = torch.nn.functional.avg_pool2d(noise, 2, stride=1)
    noise[:, 1] += 0.5 * noise[:, 0]
    found = correlation_statistics(noise)
    assert found.shape == (2, STATISTICS)
    x = noise[1].double().numpy()

    def expected(a: int, b: int, dy: int, dx: int) -> float:
        height, width = x.shape[1:]
        first = x[a, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        second = x[b, max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

    within = [(0, 1), (0, 2), *[(dy, dx) for dy in (1, 2) for dx in range(-2, 3)]]
    reach = (-1, 0, 1)
    order = [(c, c, dy, dx) for c in range(3) for dy, dx in within]
    order += [(a, b, dy, dx) for a, b in ((0, 1), (0, 2), (1, 2)) for dy in reach for dx in reach]
    assert found[1].tolist() == pytest.approx([expected(*key) for key in order], abs=2e-3)


def test_statistics_of_no_noise_are_finite() -> None:
    assert correlation_statistics(torch.zeros(1, 3, 16, 16)).abs().max() == 0
