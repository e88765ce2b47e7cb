"""Noise metrics by name with direction and range; metrics of one pair and their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from pngmodel.metrics import curves, kld
from pngmodel.metrics.akld import akld
from pngmodel.metrics.autocorrelation import autocorrelation_errors
from pngmodel.metrics.diversity import sample_correlation
from pngmodel.metrics.floors import floor_metrics

__all__ = ["METRICS", "SAMPLE_METRICS", "Metric", "floor_metrics", "mean_metrics", "noise_metrics"]

Compute: TypeAlias = Callable[[Tensor, Tensor, Tensor], float]
"""``(real_noisy, generated, clean) -> value``, images (C, H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class Metric:
    """A metric with its better direction, range and description."""

    name: str
    direction: Literal["lower", "higher", "one", "zero"]
    range: tuple[float, float]
    description: str
    compute: Compute


def _structure(name: str) -> Compute:
    return lambda real_noisy, generated, clean: autocorrelation_errors(real_noisy, generated, clean)[name]


# Bins that the generator never fills are omitted, so the sum can be below 0, but not below -1/e.
_KLD_RANGE = (-1 / math.e, math.inf)
_ALL = (
    Metric(
        "kld_naflow",
        "lower",
        _KLD_RANGE,
        "KL divergence of noise histograms as reported by NAFlow, GuidNoise and PNG: 256 bins, generated image not "
        "rounded",
        kld.kld_naflow,
    ),
    Metric(
        "kld_naflow_rounded",
        "lower",
        _KLD_RANGE,
        "as kld_naflow, with the generated image rounded to 8 bits",
        kld.kld_naflow_rounded,
    ),
    Metric(
        "kld_neca",
        "lower",
        _KLD_RANGE,
        "KL divergence of noise histograms as reported by NeCA: 64 bins on [-0.1, 0.1] and two tails, 8 bits",
        kld.kld_neca,
    ),
    Metric(
        "akld",
        "lower",
        (0, 3.35),
        "divergence of local noise variances of one sample; values far below the floor indicate leakage",
        akld,
    ),
    Metric(
        "lag1_error",
        "lower",
        (0, 2),
        "absolute error of the lag-1 autocorrelation, horizontal and vertical",
        _structure("lag1_error"),
    ),
    Metric(
        "autocorrelation_error",
        "lower",
        (0, 2),
        "mean absolute error of the autocorrelation at lags 1 to 5, horizontal and vertical",
        _structure("autocorrelation_error"),
    ),
    Metric(
        "cross_channel_error",
        "lower",
        (0, 2),
        "mean absolute error of the correlations between channels",
        _structure("cross_channel_error"),
    ),
    Metric(
        "std_curve_error",
        "lower",
        (0, math.inf),
        "relative error of the noise standard deviation against intensity",
        curves.std_curve_error,
    ),
    Metric("std_ratio", "one", (0, math.inf), "ratio of noise stds, generated over real", curves.std_ratio),
    Metric(
        "mean_offset",
        "zero",
        (-255, 255),
        "mean of generated minus real noise, digital numbers of 8 bits",
        curves.mean_offset,
    ),
    Metric(
        "saturation_error",
        "lower",
        (0, 1),
        "absolute difference of the share of values at 0 or 255",
        curves.saturation_error,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

SAMPLE_METRICS: dict[str, Metric] = {
    "sample_correlation": Metric(
        "sample_correlation",
        "zero",
        (-1, 1),
        "correlation between the noise of two samples with the same reference and clean image; should be below 0.05",
        sample_correlation,
    )
}
"""Metrics of a generator alone: ``compute`` takes two samples instead of the real and the generated image."""


def noise_metrics(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> dict[str, float]:
    """Return all metrics of a generated image, images (C, H, W) float32 in [0, 1].

    Raises:
        UserError: The shapes differ, or the images are smaller than 16 x 16 pixels.
    """
    return {name: metric.compute(real_noisy, generated, clean) for name, metric in METRICS.items()}


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over images.

    Raises:
        ValueError: There are no images, a value is NaN, or images have different metrics.
    """
    if not metrics:
        raise ValueError("mean_metrics: no images")
    for image, entry in enumerate(metrics):
        if set(entry) != set(metrics[0]):
            raise ValueError(f"mean_metrics: image {image} has {sorted(entry)}, but the first {sorted(metrics[0])}")
        if broken := [name for name, value in entry.items() if math.isnan(value)]:
            raise ValueError(f"mean_metrics: image {image} has NaN for {broken}")
    return {name: sum(entry[name] for entry in metrics) / len(metrics) for name in metrics[0]}
