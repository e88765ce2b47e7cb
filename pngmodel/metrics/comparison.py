"""Is one denoiser better than another on the same images? Mean paired difference with a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pngmodel.seeds import derive_seed

_RESAMPLES = 4000


@dataclass(frozen=True)
class Difference:
    """Mean over seeds and images, and the interval that holds it with the chosen confidence."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    metrics: ArrayLike,
    others: ArrayLike,
    *,
    scenes: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
) -> Difference:
    """Of two arrays (seeds, images) whose columns are the same images: ``metrics`` minus ``others``.

    Percentile bootstrap (Efron 1979) that draws seeds and scenes anew, each with replacement: another training and
    other scenes of the same kind. Images of a scene come together, for they are alike (cluster bootstrap). Seeds of
    the two are paired, too; with different numbers of them the means over seeds are compared, and scenes alone are
    drawn. Few seeds or scenes cannot show more than they hold: the interval is then too narrow. The draws are always
    the same.

    Args:
        figures: (seeds, images), or (images,).
        others: the same.
        scenes: of each image; none: every image is one of its own.
        confidence: share of the draws between the ends.
        resamples: number of draws.

    Raises:
        ValueError: other shapes.
    """
    first, second = (np.atleast_2d(np.asarray(x, float)) for x in (metrics, others))
    if first.ndim != 2 or first.shape[1] != second.shape[1] or not first.size:
        raise ValueError(
            f"paired_difference: {first.shape} and {second.shape} are not (seeds, images) of the same images"
        )
    if first.shape[0] != second.shape[0]:
        first, second = first.mean(0, keepdims=True), second.mean(0, keepdims=True)
    found: NDArray[np.float64] = first - second
    seeds, images = found.shape
    source = np.random.Generator(np.random.PCG64(derive_seed("bootstrap")))
    names, group = np.unique(np.arange(images) if scenes is None else np.asarray(scenes), return_inverse=True)
    # Weights instead of copies: how often each seed and each scene is drawn.
    by_seed = source.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    by_image = source.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, group]
    means = (by_seed @ found * by_image).sum(1) / by_image.sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(found.mean()), float(low), float(high))
