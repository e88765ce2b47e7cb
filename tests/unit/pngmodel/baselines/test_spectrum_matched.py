"""The spectrum-matched baseline reproduces correlation in space and colour, and the level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from pngmodel.baselines.spectrum_matched import SpectrumMatched
from pngmodel.metrics.protocols import noise_metrics
from pngmodel.statistics.spectrum import REACH, correlated_field, correlations, shaping_filter


def structured(size: int = 256, seed: int = 0) -> torch.Tensor:
    """Unit-variance field: blurred more across than down, colours mixed with a shift of one pixel."""
    g = torch.Generator().manual_seed(seed)
    white = torch.randn(3, 1, size + 4, size + 4, generator=g)
    kernel = torch.outer(torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]))
    u = conv2d(white, kernel[None, None])[:, 0]
    u = u + 0.7 * u.roll((1, 0, 2), dims=(0, 1, 2))
    return u / u.std(dim=(1, 2), keepdim=True)


def reference(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    u = structured(seed=seed)
    clean = torch.linspace(0.3, 0.7, u.shape[-1]).expand(u.shape).contiguous()
    return ((clean + (0.01 + 0.08 * clean) * u) * 255).round() / 255, clean


def test_correlations_equal_brute_force() -> None:
    u = structured(40)[:, :23, :31].double()
    x = (u - u.mean(dim=(1, 2), keepdim=True)).numpy()
    found = correlations(u.float()).numpy()
    assert found.shape == (3, 3, 15, 15)
    std = np.sqrt((x**2).mean((1, 2)))
    for dy, dx in [(0, 0), (0, 1), (3, -2), (-7, 7), (-1, 0), (7, 5)]:
        rows, columns = slice(max(0, -dy), 23 - max(0, dy)), slice(max(0, -dx), 31 - max(0, dx))
        here = x[:, rows, columns]
        there = x[:, max(0, dy) : 23 + min(0, dy), max(0, dx) : 31 + min(0, dx)]
        for c in range(3):
            for d in range(3):
                expected = (here[c] * there[d]).mean() / (std[c] * std[d])
                assert found[c, d, REACH + dy, REACH + dx] == pytest.approx(np.clip(expected, -1, 1), abs=1e-5)


def test_correlations_of_an_image_smaller_than_the_window() -> None:
    found = correlations(torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0)))
    assert float(found[0, 0, REACH, REACH]) == pytest.approx(1)
    assert float(found[0, 0, :2].abs().max()) == 0  # no pixel has a neighbour 6 rows away
    assert bool(found.isfinite().all())


def test_filter_of_white_noise_is_the_identity() -> None:
    window = torch.zeros(3, 3, 15, 15)
    window[range(3), range(3), REACH, REACH] = 1
    taps = shaping_filter(window)
    expected = torch.zeros_like(taps)
    expected[range(3), range(3), 0, 0] = 1
    torch.testing.assert_close(taps, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(256, 256), (200, 333)])
def test_field_has_the_correlations_asked_for(size: tuple[int, int]) -> None:
    wanted = correlations(structured(512))
    field = correlated_field(shaping_filter(wanted), *size, seed=3)
    assert field.shape == (3, *size)
    assert float(field.std()) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(correlations(field), wanted, atol=0.06, rtol=0)
    assert float((correlations(field) - wanted).abs().mean()) < 0.015


def test_field_does_not_wrap_around() -> None:
    field = correlated_field(shaping_filter(correlations(structured(256))), 128, 2048, seed=0)
    edges = (field[:, 0] * field[:, -1]).mean() / field.var()
    assert abs(float(edges)) < 0.08
    # Stationary: the border varies as much as the middle.
    assert float(field[:, 0].std() / field[:, 64].std()) == pytest.approx(1, abs=0.08)


def test_impossible_correlations_become_the_nearest_possible() -> None:
    """A box of full correlation is no autocorrelation: its spectrum is negative in places."""
    taps = shaping_filter(torch.ones(1, 1, 15, 15))
    field = correlated_field(taps, 256, 256, seed=0)
    assert bool(field.isfinite().all())
    assert float(taps.square().sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("kind", ["moments", "quantiles"])
def test_reproduces_real_structure_and_level(kind: str) -> None:
    real, clean = reference()
    model = SpectrumMatched(kind)
    generated = model.sample(clean[None], [model.extract(real, clean)], [1])[0]
    found = noise_metrics(real, generated, clean)
    assert found["lag1_error"] < 0.02
    assert found["autocorrelation_error"] < 0.02
    assert found["cross_channel_error"] < 0.03
    assert found["std_ratio"] == pytest.approx(1, abs=0.03)
    assert found["std_curve_error"] < 0.06
    assert abs(found["mean_offset"]) < 0.6
    assert found["kld_naflow_rounded"] < 0.005
    # Independent of the real noise, so not below the floor of correlated noise.
    assert found["akld"] > 0.1


def test_quantiles_keep_the_skew_that_moments_lose() -> None:
    u = structured()
    clean = torch.full_like(u, 0.5)
    skewed = (clean + 0.05 * (1 - torch.exp(0.5 * u))).clamp(0, 1)

    def skewness(x: torch.Tensor) -> float:
        z = (x - x.mean()) / x.std()
        return float((z**3).mean())

    generated = {}
    for kind in ("moments", "quantiles"):
        model = SpectrumMatched(kind)
        generated[kind] = model.sample(clean[None], [model.extract(skewed, clean)], [1])[0]
    assert skewness(skewed - clean) < -1.2
    assert abs(skewness(generated["moments"] - clean)) < 0.15
    assert skewness(generated["quantiles"] - clean) == pytest.approx(skewness(skewed - clean), abs=0.35)
