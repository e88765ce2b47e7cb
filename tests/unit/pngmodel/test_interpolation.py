"""Interpolation of prompts: exact ends, curves mixed at equal intensities, noise levels between on real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pngmodel
from pngmodel import NoiseGenerator, UserError, interpolate
from pngmodel.baselines import BASELINES, baseline
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator, Prompts
from pngmodel.statistics import whitening

SAMPLES = Path(pngmodel.__file__).parent / "samples"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def sample(position: int) -> tuple[np.ndarray, np.ndarray]:
    """(noisy, clean) of a shipped SIDD block: the first is Samsung S6 ISO 800, the last Google Pixel ISO 10000."""
    name = sorted(p.name.removesuffix("_noisy.png") for p in SAMPLES.glob("*_noisy.png"))[position]
    noisy, clean = (np.asarray(Image.open(SAMPLES / f"{name}_{side}.png"))[:160, :160] for side in ("noisy", "clean"))
    return noisy, clean


@pytest.fixture(scope="module", params=["shipped", *BASELINES])
def generator(request: Any) -> NoisyImageGenerator:
    return NoiseGenerator.from_pretrained() if request.param == "shipped" else baseline(request.param)


def ends(generator: NoisyImageGenerator) -> tuple[Prompts, Prompts]:
    return generator.prompts(*sample(0))[0], generator.prompts(*sample(-1))[0]


def test_ends_are_exact_and_copies(generator: NoisyImageGenerator) -> None:
    a, b = ends(generator)
    for weight, expected in ((0, a), (0.0, a), (1, b), (1.0, b)):
        found = interpolate(a, b, weight)
        assert set(found) == set(expected)
        for name, value in found.items():
            assert torch.equal(value, expected[name])
            assert value.data_ptr() != expected[name].data_ptr()


def test_noise_levels_of_real_references_lie_between_and_rise(generator: NoisyImageGenerator) -> None:
    a, b = ends(generator)
    # Mid-grey slope: no clipping, and inside the intensities that both references know.
    clean = np.broadcast_to(np.linspace(0.25, 0.45, 160, dtype=np.float32)[None, :, None], (160, 160, 3)).copy()
    stds = []
    for weight in WEIGHTS:
        noisy = np.asarray(generator.generate(clean, prompts=interpolate(a, b, weight), seed=3))
        stds.append(float((noisy - clean).std()))
    assert stds[-1] > 1.5 * stds[0]
    assert stds == sorted(stds)
    steps = np.diff(stds)
    assert steps.min() > 0.1 * (stds[-1] - stds[0])  # not one jump between equal levels


def test_codes_stay_shares_and_covariances_stay_linear() -> None:
    generator = NoiseGenerator.from_pretrained()
    a, b = ends(generator)
    half = interpolate(a, b, 0.5)
    for name in ("global_0", "global_3"):
        assert float(half[name].sum()) == pytest.approx(float(a[name].sum()), rel=1e-5)
    for name in ("reference_covariance", "sampled_covariance", "statistics", "local"):
        torch.testing.assert_close(half[name], (a[name] + b[name]) / 2)


@pytest.mark.parametrize("kind", ["moments", "quantiles"])
@pytest.mark.parametrize("size", [160, 64])
def test_curves_are_mixed_at_equal_intensities(kind: Any, size: int) -> None:
    """At any intensity, whatever the knots and their number: the mean of what both curves say (NumPy's interp)."""
    (n1, c1), (n2, c2) = (tuple(to_unit(x)[0][0] for x in sample(k)) for k in (0, -1))
    a, b = whitening.fit(kind, n1, c1), whitening.fit(kind, n2[:, :size, :size], c2[:, :size, :size])
    mixed = whitening.interpolated(a, b, 0.3)
    assert mixed["knots"].shape[1] == a["knots"].shape[1] + b["knots"].shape[1]
    assert mixed["values"].shape[:2] == mixed["knots"].shape
    at = np.linspace(-0.05, 1.05, 301)
    for channel in range(3):
        for q in range(mixed["values"].shape[-1]):
            read = [np.interp(at, x["knots"][channel], x["values"][channel, :, q]) for x in (a, b, mixed)]
            np.testing.assert_allclose(read[2], 0.7 * read[0] + 0.3 * read[1], atol=2e-6)
    if kind == "quantiles":
        assert bool((mixed["values"].diff(dim=-1) > 0).all())


def test_curves_of_flat_images_are_mixed_too() -> None:
    flat = torch.full((3, 48, 48), 0.4)
    g = torch.Generator().manual_seed(0)
    curves = [whitening.fit("quantiles", flat + s * torch.randn(3, 48, 48, generator=g), flat) for s in (0.01, 0.03)]
    mixed = whitening.interpolated(curves[0], curves[1], 0.5)
    noise = whitening.unwhiten("quantiles", mixed, torch.randn(3, 96, 96, generator=g), torch.full((3, 96, 96), 0.6))
    assert float(noise.std()) == pytest.approx(0.02, rel=0.05)


def test_a_small_model_takes_mixed_prompts(model: Any, pair: Callable[..., Any]) -> None:
    generator = NoiseGenerator(model)
    (n1, c1), (n2, c2) = pair(1, 64, 64), pair(2, 48, 80)
    mixed = interpolate(generator.prompts(n1, c1)[0], generator.prompts(n2, c2)[0], 0.4)
    assert np.asarray(generator.generate(c1, prompts=mixed, seed=1)).shape == c1.shape


def test_what_does_not_belong_together_is_refused(pair: Callable[..., Any]) -> None:
    awgn, other = baseline("awgn"), baseline("heteroscedastic")
    colour, grey = pair(1), pair(1, channels=1)
    a = awgn.prompts(*colour)[0]
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=r"interpolate: weight is .*; expected a value in"):
            interpolate(a, a, weight)
    with pytest.raises(UserError, match=r"only one of the prompts has \['knots', 'mean', 'std', 'values'\]"):
        interpolate(a, other.prompts(*colour)[0], 0.5)
    for generator in (awgn, other):
        with pytest.raises(UserError, match="both of colour or both of grey"):
            interpolate(generator.prompts(*colour)[0], generator.prompts(*grey)[0], 0.5)
