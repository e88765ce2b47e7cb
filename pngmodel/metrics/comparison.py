"""Comparison of two denoisers on the same images: mean paired difference with a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pngmodel.seeds import derive_seed

_RESAMPLES = 4000


@dataclass(frozen=True)
class Difference:
    """Mean difference over seeds and images, and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    metrics: ArrayLike,
    others: ArrayLike,
    *,
    scenes: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
) -> Difference:
    """Return the mean of ``metrics`` minus ``others`` with a percentile bootstrap interval (Efron 1979).

    Seeds and scenes are resampled with replacement. Images of a scene are resampled together, because they are similar
    (cluster bootstrap). Seeds are paired; if their numbers differ, means over seeds are compared and only scenes are
    resampled. With few seeds or scenes, the interval is too narrow. The resampling is deterministic.

    Args:
        metrics: Values (seeds, images) or (images,).
        others: Values of the same images.
        scenes: Scene of each image; default: one scene per image.
        confidence: Confidence level, in (0, 1).
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: The shapes do not match.
    """
    first, second = (np.atleast_2d(np.asarray(x, float)) for x in (metrics, others))
    if first.ndim != 2 or first.shape[1] != second.shape[1] or not first.size:
        raise ValueError(
            f"paired_difference: shapes {first.shape} and {second.shape} are not (seeds, images) of the same images"
        )
    if first.shape[0] != second.shape[0]:
        first, second = first.mean(0, keepdims=True), second.mean(0, keepdims=True)
    found: NDArray[np.float64] = first - second
    seeds, images = found.shape
    source = np.random.Generator(np.random.PCG64(derive_seed("bootstrap")))
    names, group = np.unique(np.arange(images) if scenes is None else np.asarray(scenes), return_inverse=True)
    # multiplicities of seeds and scenes in each bootstrap sample
    by_seed = source.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    by_image = source.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, group]
    means = (by_seed @ found * by_image).sum(1) / by_image.sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(found.mean()), float(low), float(high))
