"""Whitening and decorrelation: what comes out has no second-order structure, and the way back restores it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.network.presets import ModelConfig
from pngmodel.statistics import spectrum
from pngmodel.statistics.units import COVARIANCE, NoiseUnits


def demosaiced(seed: int, side: int = 256) -> Tensor:
    """Noise as a sensor's colour filters leave it: places of a 2 x 2 pattern are measured, the others interpolated."""
    g = torch.Generator().manual_seed(seed)
    raw = torch.randn(1, side + 2, side + 2, generator=g)
    y, x = torch.meshgrid(torch.arange(side + 2) % 2, torch.arange(side + 2) % 2, indexing="ij")
    planes = []
    for location in (((0, 0),), ((0, 1), (1, 0)), ((1, 1),)):  # R, G, B of a Bayer pattern
        mask = sum(((y == a) & (x == b)).float() for a, b in location)
        kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])[None, None]
        planes.append((F.conv2d((raw * mask)[None], kernel) / F.conv2d((mask * torch.ones_like(raw))[None], kernel))[0])
    # Rounding and what programs add: no frequency is quite without noise.
    noise = torch.cat(planes) + 0.25 * torch.randn(3, side, side, generator=g)
    return noise / noise.std(dim=(1, 2), keepdim=True)


def place_stds(u: Tensor) -> np.ndarray:
    return spectrum.to_phases(u).std(dim=(1, 2)).numpy().reshape(3, 4)


def correlation(u: Tensor, dy: int, dx: int) -> float:
    a, b = u[:, : u.shape[1] - dy, : u.shape[2] - dx].flatten(), u[:, dy:, dx:].flatten()
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


@pytest.fixture
def units(smallest: Callable[..., ModelConfig]) -> Callable[..., NoiseUnits]:
    return lambda **changes: NoiseUnits(smallest(whitening="quantiles", **changes))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    clean = torch.linspace(0.3, 0.7, 256 * 256).reshape(1, 256, 256).expand(3, -1, -1)
    return (clean + 0.05 * demosaiced(0)), clean


def test_phases_are_the_places_of_a_2_by_2_pattern() -> None:
    u = torch.arange(3 * 4 * 6).float().reshape(3, 4, 6)
    folded = spectrum.to_phases(u)
    assert torch.equal(folded[4 + 2], u[1, 1::2, 0::2])
    assert torch.equal(spectrum.from_phases(folded), u)


@pytest.mark.parametrize("decorrelation", ["spectrum", "polyphase"])
def test_decorrelated_noise_is_white(units: Callable[..., NoiseUnits], pair, decorrelation: str) -> None:
    made = units(decorrelation=decorrelation)
    u, fitted = made.fit(*pair)
    assert correlation(u, 0, 1) > 0.3
    e = made.decorrelated(u, fitted)
    inner = e[:, 32:-32, 32:-32]
    assert max(abs(correlation(inner, dy, dx)) for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2))) < 0.12
    assert float(inner.std()) == pytest.approx(1, abs=0.3)


def test_only_polyphase_knows_the_sensors_pattern(units: Callable[..., NoiseUnits], pair) -> None:
    real = place_stds(units().fit(*pair)[0])
    assert float((real.max(1) / real.min(1)).max()) > 1.3
    errors = {}
    for decorrelation in ("spectrum", "polyphase"):
        made = units(decorrelation=decorrelation, calibration="colours")
        _, fitted = made.fit(*pair)
        white = torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(1))
        u = made.colour_matched(made.coloured(white, fitted), fitted[COVARIANCE])
        errors[decorrelation] = float(np.abs(place_stds(u) / real - 1).max())
    assert errors["polyphase"] < 0.01
    assert errors["spectrum"] > 0.1


@pytest.mark.parametrize("decorrelation", ["none", "spectrum", "polyphase"])
def test_colouring_undoes_decorrelation(units: Callable[..., NoiseUnits], pair, decorrelation: str) -> None:
    made = units(decorrelation=decorrelation)
    u, fitted = made.fit(*pair)
    back = made.coloured(made.decorrelated(u, fitted), fitted)
    error = (back - u)[:, 32:-32, 32:-32].std() / u.std()
    assert float(error) < (1e-6 if decorrelation == "none" else 0.35)  # weak frequencies are not raised to 1


def test_without_options_noise_is_the_published_one(smallest: Callable[..., ModelConfig], pair) -> None:
    made = NoiseUnits(smallest())
    u, fitted = made.fit(*pair)
    torch.testing.assert_close(u, 2 * (pair[0] - pair[1]))
    assert fitted == {}
    torch.testing.assert_close(made.unwhitened(u, pair[1], fitted), pair[0] - pair[1])


def test_colour_matching_gives_exactly_the_wanted_covariance() -> None:
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 64, 64, generator=g) + 0.3
    root = torch.randn(3, 3, generator=g)
    wanted = root @ root.T
    found = spectrum.colour_matched(noise, wanted)
    np.testing.assert_allclose(np.cov(found.flatten(1).numpy(), bias=True), wanted.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.mean(dim=(1, 2)).numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("side", [16, 24, 40, 72])
@pytest.mark.parametrize("decorrelation", ["spectrum", "polyphase"])
def test_small_references_stay_of_one_strength(units: Callable[..., NoiseUnits], side: int, decorrelation: str) -> None:
    made = units(decorrelation=decorrelation)
    clean = torch.full((3, side, side), 0.5)
    u, fitted = made.fit(clean + 0.05 * demosaiced(3, side), clean)
    assert 0.6 < float(made.decorrelated(u, fitted).std()) < 2.0
