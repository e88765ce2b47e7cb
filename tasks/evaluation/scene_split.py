"""Which scenes are kept from a classifier: whole scenes on one side, every class on both where that can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pngmodel.seeds import derive_seed

_LEAST_KEPT = 0.4  # of a class's samples stay to be trained on


@dataclass(frozen=True)
class Divisible:
    """Samples of the classes that can be split by scene, and the classes that cannot."""

    rows: tuple[int, ...]
    classes: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    """``class`` and ``reason``."""


def divisible(labels: Sequence[str], scenes: Sequence[str], least: int) -> Divisible:
    """The classes with at least two scenes and ``least`` samples.

    Args:
        labels: class of every sample.
        scenes: scene of every sample.
        least: samples that a class needs.
    """
    counts = Counter(labels)
    lies_in: dict[str, set[str]] = {}
    for label, scene in zip(labels, scenes, strict=True):
        lies_in.setdefault(label, set()).add(scene)
    skipped = {}
    for label in sorted(counts):
        if len(lies_in[label]) < 2:
            skipped[label] = f"lies in one scene alone ({next(iter(lies_in[label]))}), {counts[label]} samples"
        elif counts[label] < least:
            skipped[label] = f"has {counts[label]} samples, fewer than {least}"
    rows = tuple(k for k, label in enumerate(labels) if label not in skipped)
    told = tuple({"class": label, "reason": reason} for label, reason in skipped.items())
    return Divisible(rows, tuple(label for label in sorted(counts) if label not in skipped), told)


def held_out_scenes(labels: Sequence[str], scenes: Sequence[str], share: float, seed: int) -> set[str]:
    """Scenes to hold out: at first one for every class, then more until ``share`` of the samples is held out.

    No scene is taken that would leave a class without a scene to train on, or with less than 40 % of its samples. A
    function of names and seed.
    """
    held_by: dict[str, Counter[str]] = {}
    for label, scene in zip(labels, scenes, strict=True):
        held_by.setdefault(scene, Counter())[label] += 1
    total = Counter(labels)
    kept = Counter(total)  # samples of a class that are left to train on
    left = Counter({label: sum(label in counts for counts in held_by.values()) for label in total})
    order = sorted(held_by, key=lambda scene: (derive_seed("metadata scenes", seed, scene), scene))
    found: set[str] = set()

    def take(scene: str) -> bool:
        counts = held_by[scene]
        if scene in found or any(
            left[label] < 2 or kept[label] - n < _LEAST_KEPT * total[label] for label, n in counts.items()
        ):
            return False
        found.add(scene)
        kept.subtract(counts)
        left.subtract(counts.keys())
        return True

    for label in sorted(total, key=lambda name: (left[name], name)):
        if kept[label] == total[label]:
            any(take(scene) for scene in order if label in held_by[scene])
    for scene in order:
        if sum(kept.values()) <= (1 - share) * len(labels):
            break
        take(scene)
    return found
