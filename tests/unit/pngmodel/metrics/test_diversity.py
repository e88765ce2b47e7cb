"""Correlation of two draws, against NumPy and on the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pngmodel
from pngmodel import NoiseGenerator, UserError
from pngmodel.baselines import BASELINES, baseline
from pngmodel.images import to_unit
from pngmodel.metrics.diversity import sample_correlation

SAMPLES = Path(pngmodel.__file__).parent / "samples"


def test_it_is_pearson_over_all_values(pair) -> None:
    (one, clean), (other, _) = pair(1), pair(1, repeat=1)
    mixed = (0.5 * one + 0.5 * other).clamp(0, 1)
    for a, b in ((one, other), (one, mixed), (one, (2 * clean - one).clamp(0, 1))):
        expected = np.corrcoef((a - clean).double().flatten(), (b - clean).double().flatten())[0, 1]
        assert sample_correlation(a, b, clean) == pytest.approx(expected, abs=1e-6)
    assert abs(sample_correlation(one, other, clean)) < 0.02
    assert sample_correlation(one, one, clean) == pytest.approx(1)


def test_noise_free_draws_have_no_correlation_and_no_nan() -> None:
    flat = torch.full((1, 32, 32), 0.5)
    assert sample_correlation(flat, flat, flat) == 0.0


def test_images_are_checked(pair) -> None:
    real, clean = pair(1)
    with pytest.raises(UserError, match="second has shape"):
        sample_correlation(real, real[:, :-1], clean)


@pytest.mark.parametrize("sample", ["first", "last"])
def test_draws_of_the_shipped_model_and_the_baselines_differ(sample: str) -> None:
    """Two draws from one real reference correlate below .05 (issue 4)."""
    names = sorted(p.name.removesuffix("_noisy.png") for p in SAMPLES.glob("*_noisy.png"))
    name = names[0] if sample == "first" else names[-1]
    noisy, clean = (
        to_unit(np.asarray(Image.open(SAMPLES / f"{name}_{side}.png")))[0][0] for side in ("noisy", "clean")
    )
    noisy, clean = noisy[:, :128, :128], clean[:, :128, :128]
    for generator in [NoiseGenerator.from_pretrained(), *map(baseline, BASELINES)]:
        prompts = generator.extract(noisy, clean)
        one, other = generator.sample(clean.expand(2, -1, -1, -1), [prompts] * 2, [1, 2])
        assert abs(sample_correlation(one, other, clean)) < 0.05, generator.name
