"""The noise metrics by name, each with its direction and range; figures of one pair and their means."""

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
"""``(real_noisy, generated, clean) -> figure``, all (C, H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class Metric:
    """One figure: what it means and which way is better."""

    name: str
    direction: Literal["lower", "higher", "one", "zero"]
    range: tuple[float, float]
    description: str
    compute: Compute


def _structure(name: str) -> Compute:
    return lambda real_noisy, generated, clean: autocorrelation_errors(real_noisy, generated, clean)[name]


# Bins that the generator never fills are left out, so the sum can fall below 0: to -1/e at worst.
_KLD_RANGE = (-1 / math.e, math.inf)
_ALL = (
    Metric(
        "kld_naflow",
        "lower",
        _KLD_RANGE,
        "histogram divergence as NAFlow, GuidNoise and PNG report it: 256 bins, generated image not rounded",
        kld.kld_naflow,
    ),
    Metric(
        "kld_naflow_rounded",
        "lower",
        _KLD_RANGE,
        "the same histogram divergence with the generated image rounded to 8 bits",
        kld.kld_naflow_rounded,
    ),
    Metric(
        "kld_neca",
        "lower",
        _KLD_RANGE,
        "histogram divergence as NeCA reports it: 64 bins on [-.1, .1] and two tails, rounded to 8 bits",
        kld.kld_neca,
    ),
    Metric(
        "akld",
        "lower",
        (0, 3.35),
        "divergence of local noise variances; one draw. Far below the floor means leakage, not quality",
        akld,
    ),
    Metric(
        "lag1_error",
        "lower",
        (0, 2),
        "error of the correlation between neighbouring pixels",
        _structure("lag1_error"),
    ),
    Metric(
        "autocorrelation_error",
        "lower",
        (0, 2),
        "mean error of the correlation over distances of 1 to 5 pixels, both directions",
        _structure("autocorrelation_error"),
    ),
    Metric(
        "cross_channel_error",
        "lower",
        (0, 2),
        "mean error of the correlation between colours",
        _structure("cross_channel_error"),
    ),
    Metric(
        "std_curve_error",
        "lower",
        (0, math.inf),
        "relative error of the noise's standard deviation against intensity",
        curves.std_curve_error,
    ),
    Metric("std_ratio", "one", (0, math.inf), "generated noise std over real noise std", curves.std_ratio),
    Metric(
        "mean_offset",
        "zero",
        (-255, 255),
        "generated noise mean minus real noise mean, 8-bit levels",
        curves.mean_offset,
    ),
    Metric(
        "saturation_error",
        "lower",
        (0, 1),
        "difference of the share of values at 0 or 255",
        curves.saturation_error,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

SAMPLE_METRICS: dict[str, Metric] = {
    "sample_correlation": Metric(
        "sample_correlation",
        "zero",
        (-1, 1),
        "correlation between the noise of two draws from one reference on one clean image; must be below .05",
        sample_correlation,
    )
}
"""Figures of one generator alone: ``compute`` takes two of its draws in the place of the real and a generated image."""


def noise_metrics(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> dict[str, float]:
    """Every metric of one generated image, all (C, H, W) float32 in [0, 1].

    Raises:
        UserError: shapes differ, or the images are below 16 x 16.
    """
    return {name: metric.compute(real_noisy, generated, clean) for name, metric in METRICS.items()}


def mean_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Plain mean over images of each figure.

    Raises:
        ValueError: no image, a NaN, or images with other figures than the first.
    """
    if not metrics:
        raise ValueError("mean_figures: no images")
    for image, entry in enumerate(metrics):
        if set(entry) != set(metrics[0]):
            raise ValueError(f"mean_figures: image {image} has {sorted(entry)}, the first {sorted(metrics[0])}")
        if broken := [name for name, value in entry.items() if math.isnan(value)]:
            raise ValueError(f"mean_figures: image {image} has NaN for {broken}")
    return {name: sum(entry[name] for entry in metrics) / len(metrics) for name in metrics[0]}
