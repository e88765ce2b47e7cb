"""Whitening by the reference: invertible, about N(0, 1), and robust where an image is flat or silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pngmodel.statistics.whitening import fit, unwhiten, whiten

KINDS = ("moments", "quantiles")


def ramp(height: int = 192, width: int = 192) -> Tensor:
    """A clean image with every intensity of [.1, .9], other ramps per channel."""
    x = torch.linspace(0.1, 0.9, height * width)
    return torch.stack([x.reshape(height, width), x.flip(0).reshape(height, width), x.reshape(width, height).T])


def heteroscedastic(clean: Tensor, seed: int = 0, skew: bool = False) -> Tensor:
    """Noise with std sqrt(.0002 + .002 I): Gaussian, or a shifted gamma of skewness 1."""
    rng = np.random.default_rng(seed)
    unit = (rng.gamma(4.0, 1.0, clean.shape) - 4) / 2 if skew else rng.standard_normal(clean.shape)
    return (0.0002 + 0.002 * clean).sqrt() * torch.from_numpy(unit).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skew", [False, True])
def test_round_trip(kind: str, skew: bool) -> None:
    clean = ramp()
    noise = heteroscedastic(clean, skew=skew)
    curves = fit(kind, clean + noise, clean)
    u = whiten(kind, curves, clean + noise, clean)
    inside = u.abs() < 4.4  # beyond the clip nothing can come back
    assert float(inside.float().mean()) > 0.995
    torch.testing.assert_close(unwhiten(kind, curves, u, clean)[inside], noise[inside], atol=2e-5, rtol=1e-4)


def test_none_only_changes_the_range() -> None:
    clean = ramp(16, 16)
    noise = heteroscedastic(clean)
    assert fit("none", clean + noise, clean) == {}
    u = whiten("none", {}, clean + noise, clean)
    torch.testing.assert_close(u, 2 * noise, atol=1e-6, rtol=0)
    torch.testing.assert_close(unwhiten("none", {}, u, clean), noise, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_whitened_noise_is_standard_at_every_intensity(kind: str) -> None:
    clean = ramp()
    u = whiten(kind, fit(kind, (noisy := clean + heteroscedastic(clean)), clean), noisy, clean)
    for c in range(3):
        for low in (0.1, 0.3, 0.5, 0.7):
            part = u[c][(clean[c] >= low) & (clean[c] < low + 0.2)]
            assert float(part.mean()) == pytest.approx(0, abs=0.06)
            assert float(part.std()) == pytest.approx(1, abs=0.05)


def test_quantiles_make_skewed_noise_gaussian_where_moments_do_not() -> None:
    clean = ramp()
    noisy = clean + heteroscedastic(clean, skew=True)
    found = {kind: whiten(kind, fit(kind, noisy, clean), noisy, clean)[0].flatten().numpy() for kind in KINDS}
    assert abs(stats.skew(found["quantiles"])) < 0.1
    assert stats.skew(found["moments"]) > 0.7
    assert stats.kstest(found["quantiles"], "norm").statistic < 0.02


def test_quantiles_of_skewed_noise_survive_generation_from_gaussian() -> None:
    clean = ramp()
    noise = heteroscedastic(clean, skew=True)
    curves = fit("quantiles", clean + noise, clean)
    u = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    made = unwhiten("quantiles", curves, u, clean)
    scale = (0.0002 + 0.002 * clean).sqrt()
    probabilities = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
    found = np.quantile((made / scale).numpy(), probabilities)
    expected = (stats.gamma(4).ppf(probabilities) - 4) / 2
    np.testing.assert_allclose(found, expected, atol=0.06)
    assert float(stats.skew((made / scale).numpy().ravel())) == pytest.approx(1, abs=0.2)


def test_moments_recover_the_true_curves() -> None:
    clean = ramp()
    noise = heteroscedastic(clean) + 0.01 * clean - 0.004
    curves = fit("moments", clean + noise, clean)
    knots = curves["knots"].double()
    mean, std = curves["values"].double().unbind(-1)
    torch.testing.assert_close(mean, 0.01 * knots - 0.004, atol=1.5e-3, rtol=0)
    torch.testing.assert_close(std, (0.0002 + 0.002 * knots).sqrt(), atol=0, rtol=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_intensities_outside_the_reference_use_its_ends(kind: str) -> None:
    clean = 0.4 + 0.2 * ramp()
    curves = fit(kind, clean + heteroscedastic(clean), clean)
    u = torch.full((3, 4, 4), 1.5)
    low, end = (unwhiten(kind, curves, u, torch.full((3, 4, 4), v)) for v in (0.0, float(curves["knots"].min())))
    torch.testing.assert_close(low[0], end[0])
    assert bool(torch.isfinite(unwhiten(kind, curves, u, torch.ones(3, 4, 4))).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.0, 0.3, 128 / 255, 1.0])
def test_flat_image(kind: str, level: float) -> None:
    clean = torch.full((3, 96, 96), level)
    noise = 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    curves = fit(kind, clean + noise, clean)
    u = whiten(kind, curves, clean + noise, clean)
    assert float(u.mean()) == pytest.approx(0, abs=0.02)
    assert float(u.std()) == pytest.approx(1, abs=0.02)
    inside = u.abs() < 4.4
    torch.testing.assert_close(unwhiten(kind, curves, u, clean)[inside], noise[inside], atol=1e-5, rtol=1e-3)


def test_flat_image_uses_all_its_pixels() -> None:
    # The noise gets stronger from top to bottom: the curve is that of the whole image.
    clean = torch.full((3, 96, 96), 0.5)
    strength = torch.linspace(0.01, 0.05, 96)[:, None]
    noise = strength * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    curves = fit("quantiles", clean + noise, clean)
    made = unwhiten("quantiles", curves, torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)), clean)
    assert float(made.std()) == pytest.approx(float(noise.std()), rel=0.05)


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("flat", [True, False])
def test_silent_noise_stays_finite_and_comes_back_silent(kind: str, offset: float, flat: bool) -> None:
    clean = torch.full((3, 48, 48), 0.4) if flat else ramp(48, 48)
    curves = fit(kind, clean + offset, clean)
    u = whiten(kind, curves, clean + offset, clean)
    assert bool(torch.isfinite(u).all())
    back = unwhiten(kind, curves, u, clean)
    torch.testing.assert_close(back, torch.full_like(back, offset), atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_are_clipped(kind: str) -> None:
    clean = ramp(64, 64)
    noisy = clean + heteroscedastic(clean)
    noisy[0, 5, 5] += 0.9
    u = whiten(kind, fit(kind, noisy, clean), noisy, clean)
    assert float(u.max()) <= {"moments": 5.0, "quantiles": 4.5}[kind]
    assert float(u[0, 5, 5]) > 4


def test_eight_bit_noise_is_spread_and_comes_back_on_its_levels() -> None:
    g = torch.Generator().manual_seed(0)
    clean = (ramp(128, 128) * 255).round() / 255
    noisy = ((clean + 0.006 * torch.randn(clean.shape, generator=g)) * 255).round() / 255
    curves = fit("quantiles", noisy, clean)
    u = whiten("quantiles", curves, noisy, clean)
    # Four or five levels of noise become a continuum ...
    assert stats.kstest(u[0].flatten().numpy(), "norm").statistic < 0.03
    assert len(torch.unique(u[0])) > 0.9 * u[0].numel()
    # ... and rounding gives the same levels back.
    inside = u.abs() < 4.4
    back = ((clean + unwhiten("quantiles", curves, u, clean)) * 255).round() / 255
    assert float((back == noisy)[inside].float().mean()) > 0.999


def test_curves_are_small_and_repeatable() -> None:
    clean = ramp()
    noisy = clean + heteroscedastic(clean)
    for kind in KINDS:
        first, second = fit(kind, noisy, clean), fit(kind, noisy, clean)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert sum(v.numel() for v in first.values()) < 2000
        assert all(v.dtype == torch.float32 for v in first.values())


@pytest.mark.parametrize("side", [16, 24])
def test_small_references_work(side: int) -> None:
    clean = ramp(side, side)
    noisy = clean + heteroscedastic(clean)
    for kind in KINDS:
        u = whiten(kind, fit(kind, noisy, clean), noisy, clean)
        assert float(u.std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_image_equals_its_parts(kind: str) -> None:
    # Pixels are worked through in portions: none may be lost or shifted where two meet.
    clean = ramp()
    curves = fit(kind, clean + heteroscedastic(clean), clean)
    large = torch.cat([ramp(192, 192)] * 8, dim=1)[:, :, :190]
    u = torch.randn(large.shape, generator=torch.Generator().manual_seed(2))
    parts = [unwhiten(kind, curves, a, b) for a, b in zip(u.split(100, 1), large.split(100, 1), strict=True)]
    torch.testing.assert_close(unwhiten(kind, curves, u, large), torch.cat(parts, 1), atol=0, rtol=0)
    noisy = large + torch.cat(parts, 1)
    parts = [whiten(kind, curves, a, b) for a, b in zip(noisy.split(100, 1), large.split(100, 1), strict=True)]
    torch.testing.assert_close(whiten(kind, curves, noisy, large), torch.cat(parts, 1), atol=0, rtol=0)
