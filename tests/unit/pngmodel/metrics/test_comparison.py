"""Paired differences against SciPy's bootstrap and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from pngmodel.metrics.comparison import paired_difference


def test_one_seed_is_the_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(30, 3, 40)
    metrics = others + rng.normal(0.2, 0.5, 40)
    found = paired_difference(metrics, others)
    assert found.mean == pytest.approx((metrics - others).mean(), abs=1e-12)
    wanted = bootstrap(
        ((metrics - others),), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.01)
    assert found.high == pytest.approx(wanted.high, abs=0.01)
    assert paired_difference(metrics, others) == found


def test_what_all_images_share_is_certain_and_what_seeds_differ_in_is_not() -> None:
    others = np.array([[30.0, 25, 35], [31, 26, 36]])
    certain = paired_difference(others + 0.5, others)
    assert (certain.mean, certain.low, certain.high) == pytest.approx((0.5, 0.5, 0.5))
    assert certain.clear
    by_seed = paired_difference(others + np.array([[1.0], [-1.0]]), others)
    assert by_seed.mean == pytest.approx(0)
    assert (by_seed.low, by_seed.high) == pytest.approx((-1, 1))
    assert not by_seed.clear


def test_other_numbers_of_seeds_compare_means_and_other_images_do_not_compare() -> None:
    found = paired_difference([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [1.0, 2.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match="are no"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_images_of_a_scene_are_drawn_together() -> None:
    """All draws of two scenes: b b, a b, a a."""
    others = np.zeros(5)
    metrics = np.array([1.0, 1, 1, 1, 0])
    found = paired_difference(metrics, others, scenes=["a", "a", "a", "a", "b"])
    assert found.mean == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.0, 1.0))
    assert paired_difference(metrics, others).low > found.low
    assert paired_difference(metrics, others, scenes=["x"] * 5).low == pytest.approx(0.8)
