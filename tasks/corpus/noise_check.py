"""Compares the noise of a corpus with that of its references, by camera.

Both are whitened by the curves of the reference, because the clean images differ. Compared are distribution, strength,
and correlation in space and between channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from pngmodel.images import to_unit
from pngmodel.metrics.autocorrelation import autocorrelation, cross_channel
from pngmodel.metrics.kld import divergence
from pngmodel.statistics import whitening
from tasks.corpus.plan import CorpusPlan
from tasks.corpus.regenerate import pair_of
from tasks.datasets.reference_pairs import planned_references
from tasks.models.generators import one_thread

_EDGES = (-4.0, 4.0)  # of whitened noise, which is about N(0, 1)
_BINS = 16  # wider than a digital number of weak noise, so that no bin is empty


@dataclass(frozen=True)
class _Noise:
    """Statistics of one whitened noise image."""

    histogram: Tensor
    variance: float
    lag1: Tensor
    """Horizontal and vertical."""
    colours: Tensor


def sampled_pairs(plan: CorpusPlan, count: int) -> list[int]:
    """Pairs evenly spread over the corpus."""
    found: list[int] = np.unique(np.linspace(0, plan.layout.pairs - 1, count).round().astype(int)).tolist()
    return found


@one_thread()
def compare(plan: CorpusPlan, pairs: Sequence[int]) -> dict[str, dict[str, float]]:
    """Metrics by camera of the references; empty for a prompt bank, which has no noise to compare with.

    ``kld``: of whitened noise, real || generated, natural logarithm. ``std_ratio``: generated over real.
    ``lag1_error``, ``cross_channel_error``: between mean correlations. ``pairs``: how many were compared.
    """
    references = planned_references(*plan.job.references)
    if references.kept:
        return {}
    found = []
    for pair in pairs:
        sample = plan.sample(pair)
        reference = references.references[sample.reference]
        real_noisy, real_clean = (to_unit(image, reference.id)[0][0] for image in references.read(sample.reference))
        clean, noisy = (to_unit(np.moveaxis(image, 0, -1), f"sample {pair}")[0][0] for image in pair_of(plan, pair))
        if len(clean) < len(real_clean):  # grey images get the noise of the green channel
            real_noisy, real_clean = real_noisy[1:2], real_clean[1:2]
        if len(clean) != len(real_clean):
            continue  # colour images with grey references cannot be compared
        curves = whitening.fit("moments", real_noisy, real_clean)
        real, made = (whitening.whiten("moments", curves, n, c) for n, c in ((real_noisy, real_clean), (noisy, clean)))
        found.append((str(reference.camera), _measured(real), _measured(made)))
    found.sort(key=lambda item: item[0])
    return {camera: _compared(list(group)) for camera, group in groupby(found, key=lambda item: item[0])}


def _measured(noise: Tensor) -> _Noise:
    return _Noise(
        histogram=torch.histc(noise.float().clamp(*_EDGES), _BINS, *_EDGES).double(),
        variance=float(noise.double().var(correction=0)),
        lag1=autocorrelation(noise, 1)[:, 0],
        colours=cross_channel(noise),
    )


def _compared(group: list[tuple[str, _Noise, _Noise]]) -> dict[str, float]:
    real, made = [item[1] for item in group], [item[2] for item in group]

    def mean(noises: list[_Noise], name: str) -> Tensor:
        return torch.stack([getattr(noise, name) for noise in noises]).mean(0)

    # add-one smoothing: no bin has probability zero
    real_share, made_share = (h / h.sum() for h in (mean(side, "histogram") + 1 for side in (real, made)))
    colours = (mean(made, "colours") - mean(real, "colours")).abs()
    variances = [sum(noise.variance for noise in side) for side in (made, real)]
    metrics = {
        "kld": divergence(real_share, made_share),
        "std_ratio": (variances[0] / max(variances[1], 1e-12)) ** 0.5,
        "lag1_error": float((mean(made, "lag1") - mean(real, "lag1")).abs().mean()),
        "cross_channel_error": float(colours.mean()) if len(colours) else 0.0,
    }
    return {name: round(value, 5) for name, value in metrics.items()} | {"pairs": len(group)}
