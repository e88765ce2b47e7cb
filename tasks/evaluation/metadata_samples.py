"""Samples of the metadata classification: selection of pairs, prompt features and noise, split by scene."""

from __future__ import annotations

from collections import Counter
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
from pngmodel.seeds import derive_seed
from pngmodel.statistics.units import NoiseUnits
from tasks.datasets.reference_pairs import Reference, open_pairs, planned_references
from tasks.evaluation.pair_selection import central_square
from tasks.evaluation.parameters import Features
from tasks.models.generators import load_generator, model_digest, one_thread

_DIGITAL_NUMBERS = 255.0  # float16 represents the noise of 8-bit images in digital numbers exactly
_MIN_TRAINING_SHARE = 0.4  # of the samples of a class


@dataclass(frozen=True)
class Samples:
    """Noise samples by location, and how to extract their features. Sent to workers."""

    sources: tuple[tuple[str, str], ...]
    """URL and digest of each source."""
    picks: tuple[tuple[int, int], ...]
    """Index of the source and of the reference in it, per sample."""
    side: int
    generator: tuple[str, str, str]
    features: Features

    def reference(self, row: int) -> Reference:
        """Return the reference of a sample."""
        source, k = self.picks[row]
        return planned_references(*self.sources[source]).references[k]


@lru_cache(maxsize=1)
@one_thread()
def read_samples(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return prompt features (N, D) float32, and noise (N, 3, side, side) float16 in digital numbers."""
    generator = load_generator(*samples.generator)
    precision = Precision.best(samples.generator[1])
    features, noises = [], []
    for source, k in samples.picks:
        opened = planned_references(*samples.sources[source])
        images = (to_unit(image, opened.references[k].id)[0][0] for image in opened.read(k))
        noisy, clean = (central_square(image, samples.side).expand(3, -1, -1) for image in images)
        features.append(_features(generator, noisy, clean, samples.features, precision))
        noises.append(((noisy - clean) * _DIGITAL_NUMBERS).half())
    return torch.stack(features), torch.stack(noises)


def _features(
    generator: NoisyImageGenerator, noisy: Tensor, clean: Tensor, kind: Features, precision: Precision
) -> Tensor:
    if kind == "all":
        prompts = generator.extract(noisy, clean)
        return torch.cat([prompts[name].flatten().float().cpu() for name in sorted(prompts)])
    assert isinstance(generator, NoiseGenerator), "checked by choose_samples"
    whitened, _ = NoiseUnits(generator.model.config).fit(noisy, clean)
    with precision.autocast():
        code = generator.model.autoencoder.encoder.prompts(whitened[None].to(precision.device))
    names = sorted(name for name in code if name.startswith("global_") or name == "local")
    return torch.cat([code[name].flatten().float().cpu() for name in names])


def choose_samples(
    model: str, device: str, references: Sequence[str], features: Features, *, limit: int | None, side: int
) -> tuple[Samples, list[dict[str, str]]]:
    """Select the pairs with a known camera and a sufficient size.

    Args:
        model: Model bundle, or name of a baseline if ``features`` is "all".
        device: Device that extracts features.
        references: Patch stores or catalogues.
        features: Tensors that are used as features.
        limit: Maximum number of pairs, evenly spaced.
        side: Side of the central crop, pixels.

    Returns:
        The samples, and the skipped pairs with ``id`` and ``reason``.

    Raises:
        UserError: No pair can be used, or the model has no prompt blocks.
    """
    opened = [open_pairs(url) for url in references]
    every = [(s, k) for s, source in enumerate(opened) for k in range(len(source.references))]
    if limit is not None and len(every) > limit:
        every = [every[int(i)] for i in np.linspace(0, len(every) - 1, limit).round()]
    picks, skipped = [], []
    for s, k in every:
        r = opened[s].references[k]
        if r.camera is None:
            skipped.append({"id": r.id, "reason": "the camera is unknown"})
        elif min(r.height, r.width) < side:
            reason = f"has a side of {min(r.height, r.width)} pixels, less than --side {side}"
            skipped.append({"id": r.id, "reason": reason})
        else:
            picks.append((s, k))
    if not picks:
        raise UserError(f"{', '.join(references)}: no pair can be used ({skipped[0]['id']}: {skipped[0]['reason']})")
    sources = tuple((url, source.digest) for url, source in zip(references, opened, strict=True))
    generator = (model, device, model_digest(model))
    loaded = load_generator(*generator)
    if features == "prompts" and not (isinstance(loaded, NoiseGenerator) and loaded.model.config.prompts != "none"):
        raise UserError(f"{model}: has no prompt blocks; use another model, or set --features all")
    return Samples(sources, tuple(picks), side, generator, features), skipped


@dataclass(frozen=True)
class SplittableClasses:
    """Classes that can be split by scene, their samples, and the excluded classes."""

    rows: tuple[int, ...]
    """Indices of the samples of ``classes``."""
    classes: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    """``class`` and ``reason`` of each excluded class."""


def splittable_classes(labels: Sequence[str], scenes: Sequence[str], least: int) -> SplittableClasses:
    """Select the classes with at least two scenes and ``least`` samples.

    Args:
        labels: Class of each sample.
        scenes: Scene of each sample.
        least: Minimum number of samples per class.
    """
    counts = Counter(labels)
    scenes_by_class: dict[str, set[str]] = {}
    for label, scene in zip(labels, scenes, strict=True):
        scenes_by_class.setdefault(label, set()).add(scene)
    reasons = {}
    for label in sorted(counts):
        if len(scenes_by_class[label]) < 2:
            reasons[label] = f"has only one scene ({next(iter(scenes_by_class[label]))}), {counts[label]} samples"
        elif counts[label] < least:
            reasons[label] = f"has {counts[label]} samples, fewer than {least}"
    rows = tuple(k for k, label in enumerate(labels) if label not in reasons)
    skipped = tuple({"class": label, "reason": reason} for label, reason in reasons.items())
    return SplittableClasses(rows, tuple(label for label in sorted(counts) if label not in reasons), skipped)


def held_out_scenes(labels: Sequence[str], scenes: Sequence[str], share: float, seed: int) -> set[str]:
    """Select the scenes to hold out: one for each class, then more until ``share`` of the samples is held out.

    Every class keeps at least one training scene and 40 % of its samples. Depends only on names and the seed.

    Args:
        labels: Class of each sample.
        scenes: Scene of each sample.
        share: Share of the samples to hold out, in (0, 1).
        seed: Seed of the order of the scenes.
    """
    by_scene: dict[str, Counter[str]] = {}
    for label, scene in zip(labels, scenes, strict=True):
        by_scene.setdefault(scene, Counter())[label] += 1
    total = Counter(labels)
    training = Counter(total)  # training samples per class
    training_scenes = Counter({label: sum(label in counts for counts in by_scene.values()) for label in total})
    order = sorted(by_scene, key=lambda scene: (derive_seed("metadata scenes", seed, scene), scene))
    held_out: set[str] = set()

    def hold_out(scene: str) -> bool:
        counts = by_scene[scene]
        if scene in held_out or any(
            training_scenes[label] < 2 or training[label] - n < _MIN_TRAINING_SHARE * total[label]
            for label, n in counts.items()
        ):
            return False
        held_out.add(scene)
        training.subtract(counts)
        training_scenes.subtract(counts.keys())
        return True

    for label in sorted(total, key=lambda name: (training_scenes[name], name)):
        if training[label] == total[label]:
            any(hold_out(scene) for scene in order if label in by_scene[scene])
    for scene in order:
        if sum(training.values()) <= (1 - share) * len(labels):
            break
        hold_out(scene)
    return held_out
