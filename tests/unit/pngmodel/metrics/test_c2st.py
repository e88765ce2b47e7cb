"""Classifier two-sample test: the AUC formula, and a classifier that finds what is there and only that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.metrics.c2st import Budget, Classifier, Sample, area_under_curve, c2st_auc, sample
from pngmodel.network.model import Precision

CPU = Precision(torch.device("cpu"), torch.float32)
SMALL = Budget(steps=25, batch=16)
Draw = Callable[[int], Tensor]


def brute_force(positive: list[float], negative: list[float]) -> float:
    pairs = list(itertools.product(positive, negative))
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.lists(st.integers(-4, 4), min_size=1, max_size=30))
def test_area_under_curve_counts_pairs_and_ties(positive: list[int], negative: list[int]) -> None:
    found = area_under_curve(torch.tensor(positive), torch.tensor(negative))
    assert found == pytest.approx(brute_force(list(map(float, positive)), list(map(float, negative))), abs=1e-12)


def test_area_under_curve_against_scipy() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.4, 1, 301).astype(np.float32), rng.normal(0, 2, 207).astype(np.float32)
    negative[:20] = positive[:20]
    expected = mannwhitneyu(positive, negative).statistic / (301 * 207)
    assert area_under_curve(torch.from_numpy(positive), torch.from_numpy(negative)) == pytest.approx(
        expected, abs=1e-12
    )


def test_area_under_curve_of_nothing_is_no_number() -> None:
    for positive, negative in (([], [1.0]), ([1.0], []), ([math.nan], [1.0])):
        with pytest.raises(ValueError, match="area_under_curve"):
            area_under_curve(torch.tensor(positive), torch.tensor(negative))


def scenes(real: Draw, generated: Draw, count: int = 6, first: int = 0, channels: int = 3) -> list[Sample]:
    """Samples whose clean images differ, with noise of two kinds, in levels."""
    found = []
    for k in range(first, first + count):
        g = torch.Generator().manual_seed(k)
        ramp = torch.linspace(60, 180, 96).expand(channels, 96, 96) + 10 * torch.rand(channels, 96, 96, generator=g)
        images = [((ramp.round() + noise(k)[:channels]).clamp(0, 255) / 255) for noise in (real, generated)]
        found.append(sample(*images, ramp.round() / 255))
    return found


def white(std: float, salt: int) -> Draw:
    return lambda k: std * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(1000 * salt + k))


def blurred(k: int) -> Tensor:
    x = white(8, 3)(k)
    return (x + x.roll(1, -1)) / math.sqrt(2)


def checkered(k: int) -> Tensor:
    """Strength in a period of two pixels, as demosaicing leaves it."""
    gain = torch.ones(96, 96)
    gain[::2, ::2], gain[1::2, 1::2] = 1.3, math.sqrt(2 - 1.3**2)
    return white(8, 4)(k) * gain


def auc(real: Draw, generated: Draw, budget: Budget = SMALL, seed: int = 0) -> float:
    return c2st_auc(scenes(real, generated), scenes(real, generated, first=6), budget, seed, CPU)


def test_equal_noise_cannot_be_told() -> None:
    found = [auc(white(8, 1), white(8, 2), seed=seed) for seed in range(3)]
    assert 0.3 < min(found) <= max(found) < 0.7


@pytest.mark.parametrize("other", [white(16, 2), blurred, checkered], ids=["stronger", "blurred", "period"])
def test_what_differs_in_one_respect_is_told(other: Draw) -> None:
    assert auc(white(8, 1), other, Budget(steps=60, batch=16)) > 0.9


def test_averaging_hides_what_is_finer() -> None:
    budget = Budget(steps=60, batch=16)
    assert (
        auc(white(8, 1), checkered, Budget(steps=60, batch=16, average=2)) < auc(white(8, 1), checkered, budget) - 0.2
    )


def test_unrounded_images_do_not_give_themselves_away() -> None:
    """Both sides are rounded to 8 bits: the same noise, off levels in one of them, stays unknown."""

    def off_levels(k: int) -> Tensor:
        return white(8, 2)(k) + 0.3

    assert scenes(off_levels, off_levels, 1)[0].real.dtype == torch.uint8
    one, other = scenes(lambda k: white(8, 1)(k).round(), white(8, 1), 1)[0], scenes(white(8, 1), white(8, 1), 1)[0]
    assert torch.equal(one.real, other.generated)
    assert torch.equal(one.generated, other.generated)


def test_it_repeats_whatever_the_global_stream_and_follows_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = auc(white(8, 1), white(8.08, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's stream is touched
    torch.manual_seed(2)
    assert auc(white(8, 1), white(8.08, 2)) == first
    assert auc(white(8, 1), white(8.08, 2), seed=1) != first


def test_grey_images_and_progress() -> None:
    steps: list[tuple[int, int]] = []
    samples = scenes(white(8, 1), white(16, 2), channels=1)
    found = c2st_auc(samples, samples, Budget(3, 4), 0, CPU, lambda done, total: steps.append((done, total)))
    assert 0 <= found <= 1
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert samples[0].clean.shape == (3, 96, 96)


def test_the_classifier_is_small() -> None:
    assert 50_000 < sum(p.numel() for p in Classifier().parameters()) < 100_000
    assert Classifier()(torch.zeros(2, 6, 64, 64)).shape == (2,)


def test_errors() -> None:
    small = torch.zeros(3, 63, 90)
    with pytest.raises(UserError, match=r"63 x 90 pixels is too small; use at least 64 x 64"):
        sample(small, small, small)
    samples = scenes(white(8, 1), white(8, 2), 1)
    for train, held_out, words in (([], samples, "training"), (samples, [], "held-out")):
        with pytest.raises(UserError, match=f"there are no {words} samples"):
            c2st_auc(train, held_out, SMALL, 0, CPU)
