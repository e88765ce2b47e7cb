"""The registry, means over images, and floors."""

from __future__ import annotations

import math

import pytest
import torch

from pngmodel.metrics.protocols import METRICS, floor_metrics, mean_metrics, noise_metrics

NAMES = [
    "kld_naflow",
    "kld_naflow_rounded",
    "kld_neca",
    "akld",
    "lag1_error",
    "autocorrelation_error",
    "cross_channel_error",
    "std_curve_error",
    "std_ratio",
    "mean_offset",
    "saturation_error",
]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_metric_is_perfect_on_the_real_image_and_in_range_elsewhere(pair, channels: int) -> None:
    real, clean = pair(1, channels=channels)
    perfect = noise_metrics(real, real, clean)
    other = noise_metrics(real, (clean + 0.02).clamp(0, 1), clean)
    assert list(perfect) == list(other) == list(METRICS) == NAMES
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.description
        assert perfect[name] == (1.0 if metric.direction == "one" else 0.0)
        assert metric.range[0] <= other[name] <= metric.range[1]


def test_mean_is_plain_and_refuses_nan_and_mixed_figures() -> None:
    assert mean_metrics([{"a": 1.0, "b": -2.0}, {"a": 2.0, "b": 2.0}]) == {"a": 1.5, "b": 0.0}
    with pytest.raises(ValueError, match=r"image 1 has NaN for \['a'\]"):
        mean_metrics([{"a": 1.0}, {"a": math.nan}])
    with pytest.raises(ValueError, match="the first"):
        mean_metrics([{"a": 1.0}, {"b": 1.0}])
    with pytest.raises(ValueError, match="no images"):
        mean_metrics([])


def test_floors_are_what_an_independent_draw_scores(pair) -> None:
    (real, clean), (other, _) = pair(2, size=256), pair(2, size=256, repeat=1)
    floor, found = floor_metrics(real, clean), noise_metrics(real, other, clean)
    assert list(floor) == NAMES
    assert floor == floor_metrics(real, clean)
    assert floor["kld_naflow_rounded"] < 6e-4
    assert found["kld_naflow_rounded"] < 3 * floor["kld_naflow_rounded"]
    assert found["kld_neca"] < 3 * floor["kld_neca"]
    assert found["akld"] == pytest.approx(floor["akld"], rel=0.15)
    assert floor["kld_naflow"] > 5 * floor["kld_naflow_rounded"]
    for name in ("lag1_error", "autocorrelation_error", "cross_channel_error", "std_curve_error"):
        assert floor[name] < 0.05
        assert found[name] < max(4 * floor[name], 0.02)
    assert found["saturation_error"] <= 4 * floor["saturation_error"] + 1e-4


def test_floor_of_an_image_off_levels_has_no_rounding_artefact(pair) -> None:
    real, clean = pair(3, size=256)
    jitter = (torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 255
    assert floor_metrics((real + jitter).clamp(0, 1), clean)["kld_naflow"] < 6e-4


def test_floor_of_a_noise_free_grey_image_is_finite() -> None:
    flat = torch.full((1, 32, 32), 0.5)
    assert all(math.isfinite(v) for v in floor_metrics(flat, flat).values())
