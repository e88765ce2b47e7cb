"""Noise samples for the classifier of metadata: which pairs can be used, their prompt features, their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pngmodel import NoiseGenerator
from pngmodel.errors import UserError
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator
from pngmodel.network.model import Precision
from pngmodel.statistics.units import NoiseUnits
from tasks.datasets.reference_pairs import Reference, open_pairs, planned_references
from tasks.evaluation.pair_selection import middle
from tasks.evaluation.parameters import Features
from tasks.models.generators import load_generator, model_digest, one_thread

_FULL_SCALE = 255.0  # noise in grey levels, which float16 holds exactly


@dataclass(frozen=True)
class Samples:
    """Where the noise samples are, and how they are looked at."""

    sources: tuple[tuple[str, str], ...]
    """URL and digest."""
    picks: tuple[tuple[int, int], ...]
    """Source and reference there."""
    side: int
    generator: tuple[str, str, str]
    features: Features

    def reference(self, row: int) -> Reference:
        """What is known of a sample."""
        source, k = self.picks[row]
        return planned_references(*self.sources[source]).references[k]


@lru_cache(maxsize=1)
@one_thread()
def read_samples(samples: Samples) -> tuple[Tensor, Tensor]:
    """Of all samples prompt features (N, D) float32, and noise (N, 3, side, side) float16 in grey levels."""
    generator = load_generator(*samples.generator)
    precision = Precision.best(samples.generator[1])
    features, noises = [], []
    for source, k in samples.picks:
        opened = planned_references(*samples.sources[source])
        images = (to_unit(image, opened.references[k].id)[0][0] for image in opened.read(k))
        noisy, clean = (middle(image, samples.side).expand(3, -1, -1) for image in images)
        features.append(_features(generator, noisy, clean, samples.features, precision))
        noises.append(((noisy - clean) * _FULL_SCALE).half())
    return torch.stack(features), torch.stack(noises)


def _features(
    generator: NoisyImageGenerator, noisy: Tensor, clean: Tensor, kind: Features, precision: Precision
) -> Tensor:
    if kind == "all":
        prompts = generator.extract(noisy, clean)
        return torch.cat([prompts[name].flatten().float().cpu() for name in sorted(prompts)])
    assert isinstance(generator, NoiseGenerator), "checked when planned"
    whitened, _ = NoiseUnits(generator.model.config).fit(noisy, clean)
    with precision.autocast():
        code = generator.model.autoencoder.encoder.prompts(whitened[None].to(precision.device))
    names = sorted(name for name in code if name.startswith("global_") or name == "local")
    return torch.cat([code[name].flatten().float().cpu() for name in names])


def choose_samples(
    model: str, device: str, references: Sequence[str], features: Features, *, limit: int | None, side: int
) -> tuple[Samples, list[dict[str, str]]]:
    """The samples that are large enough and whose camera is known, and those that are not, with reasons.

    Raises:
        UserError: no pair can be used, or the model has no prompt blocks.
    """
    opened = [open_pairs(url) for url in references]
    every = [(s, k) for s, source in enumerate(opened) for k in range(len(source.references))]
    if limit is not None and len(every) > limit:
        every = [every[int(i)] for i in np.linspace(0, len(every) - 1, limit).round()]
    picks, skipped = [], []
    for s, k in every:
        r = opened[s].references[k]
        if r.camera is None:
            skipped.append({"id": r.id, "reason": "its camera is not known"})
        elif min(r.height, r.width) < side:
            skipped.append({"id": r.id, "reason": f"has a side of {min(r.height, r.width)}, less than --side"})
        else:
            picks.append((s, k))
    if not picks:
        raise UserError(f"{', '.join(references)}: no pair can be used; {skipped[0]['id']}: {skipped[0]['reason']}")
    sources = tuple((url, source.digest) for url, source in zip(references, opened, strict=True))
    generator = (model, device, model_digest(model))
    loaded = load_generator(*generator)
    if features == "prompts" and not (isinstance(loaded, NoiseGenerator) and loaded.model.config.prompts != "none"):
        raise UserError(f"{model}: has no prompt blocks; choose another model, or --features all")
    return Samples(sources, tuple(picks), side, generator, features), skipped
