"""The joint spectrum: measured, drawn, carried over. References are loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pngmodel.statistics.spectrum import REACH, covariances, filtered, response, transport_filter


def field(seed: int, blur: float, mix: float, side: int = 256) -> torch.Tensor:
    """Noise (3, side, side) that is blurred in space and mixed between its colours."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((3, side, side))
    smooth = np.stack([ndimage.gaussian_filter(w, blur, mode="wrap") for w in white])
    mixing = np.eye(3) + mix * np.ones((3, 3))
    return torch.from_numpy(np.einsum("cd,dhw->chw", mixing, smooth) / smooth.std()).float()


def test_covariances_are_those_of_a_loop() -> None:
    u = field(0, 0.7, 0.3, side=24)
    x = u.double().numpy()
    x = x - x.mean(axis=(1, 2), keepdims=True)
    window = covariances(u)
    for c, d, dy, dx in [(0, 0, 0, 0), (0, 1, 0, 3), (2, 1, -2, 1), (1, 1, 7, -7), (0, 2, 5, 4)]:
        products = [
            x[c, i, j] * x[d, i + dy, j + dx]
            for i in range(24)
            for j in range(24)
            if 0 <= i + dy < 24 and 0 <= j + dx < 24
        ]
        assert window[c, d, REACH + dy, REACH + dx].item() == pytest.approx(np.mean(products), abs=1e-5)


def test_far_lags_can_be_left_out() -> None:
    window = covariances(field(0, 0.7, 0.3, side=32), reach=2)
    lags = torch.arange(-REACH, REACH + 1)
    near = torch.outer(lags.abs() <= 2, lags.abs() <= 2)
    assert window[:, :, near].abs().min() > 0
    assert window[:, :, ~near].abs().max() == 0


def test_transport_carries_covariances_over() -> None:
    """A weakly correlated field gets the target's strength, grain and colour correlation, on another draw too."""
    source, target = field(1, 0.45, 0.0), 2 * field(2, 0.8, 0.4)
    taps = transport_filter(covariances(source), covariances(target))
    for seed in (1, 7):
        made, wanted = covariances(filtered(field(seed, 0.45, 0.0), taps)), covariances(target)
        assert (made - wanted).abs().max() < 0.06 * wanted.abs().max()
    assert (covariances(source) - covariances(target)).abs().max() > 0.5 * covariances(target).abs().max()


def test_transport_between_equals_changes_nothing() -> None:
    u = field(3, 0.6, 0.2)
    taps = transport_filter(covariances(u), covariances(u))
    assert torch.allclose(filtered(u, taps), u, atol=0.02)


def test_transport_of_grey_noise_makes_colours_equal() -> None:
    grey = field(4, 0.7, 0.0)[:1].expand(3, -1, -1)
    made = filtered(field(5, 0.5, 0.1), transport_filter(covariances(field(5, 0.5, 0.1)), covariances(grey)))
    assert (made[0] - made[1]).std() < 0.05 * made[0].std()


@pytest.mark.parametrize(("height", "width"), [(16, 40), (1, 9), (200, 64)])
def test_filter_agrees_with_direct_convolution_on_a_mirrored_field(height: int, width: int) -> None:
    rng = np.random.default_rng(6)
    u = rng.standard_normal((3, height, width))
    taps = torch.zeros(3, 3, 64, 64)
    kernel = rng.standard_normal((3, 3, 5, 5))
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            taps[:, :, dy % 64, dx % 64] = torch.from_numpy(kernel[:, :, 2 + dy, 2 + dx]).float()
    direct = np.stack([sum(ndimage.convolve(u[d], kernel[c, d], mode="mirror") for d in range(3)) for c in range(3)])
    assert torch.allclose(filtered(torch.from_numpy(u).float(), taps).double(), torch.from_numpy(direct), atol=1e-4)


def test_a_kept_response_changes_nothing() -> None:
    taps = transport_filter(covariances(field(1, 0.2, 0.0)), covariances(field(2, 0.45, 0.1)))
    u = field(3, 0.3, 0.0)[:, :40, :57]
    kept = response(taps, 40, 57)
    assert kept is not None
    assert torch.equal(filtered(u, taps, kept), filtered(u, taps))
    assert response(taps, 3000, 4000) is None


@pytest.mark.parametrize(("shape", "reach", "half"), [((3, 20, 31), 7, 7), ((2, 1, 9), 5, 7), ((2, 5, 4), 7, 8)])
def test_covariances_of_small_fields_go_around_no_edge(shape: tuple[int, int, int], reach: int, half: int) -> None:
    u = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3
    x = (u - u.mean(dim=(1, 2), keepdim=True)).double().numpy()
    found = covariances(u, reach, half)
    height, width = shape[1:]
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            expected = np.zeros((shape[0], shape[0]))
            if max(abs(dy), abs(dx)) <= reach and abs(dy) < height and abs(dx) < width:
                here = x[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
                there = x[:, max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
                expected = np.einsum("cyx,dyx->cd", here, there) / here[0].size
            np.testing.assert_allclose(found[..., half + dy, half + dx], expected, atol=1e-6)
