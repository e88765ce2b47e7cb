"""The pairs that an evaluation measures, each with its reference, and the generators that it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from pngmodel.baselines import BASELINES
from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from pngmodel.images import to_unit
from tasks.datasets.reference_pairs import ReferenceSource
from tasks.evaluation.parameters import Protocol
from tasks.evaluation.reference_protocols import Pairing, Pairings, paired
from tasks.models.generators import bundle_folder, model_digest
from tasks.runtime.provenance import content_key

Item = TypeVar("Item")
_RESERVED = ("model", "uncalibrated", "floor")  # rows that have a meaning


def chosen_pairings(
    source: ReferenceSource, url: str, *, split: str | None, camera: str | None, protocol: Protocol, seed: int
) -> Pairings:
    """Every pair of a split and camera with its reference under a protocol; those without one are listed.

    Raises:
        UserError: no pair is of that split or camera, or none has a reference.
    """
    picks = [k for k in source.of_split(split) if camera in (None, source.references[k].camera)]
    if not picks:
        cameras = sorted({str(r.camera) for r in source.references})
        raise UserError(f"{url}: no pair of camera {camera!r}; cameras there: {cameras}")
    pairings = paired(source.references, picks, protocol, seed)
    if not pairings.found:
        first = pairings.skipped[0]
        raise UserError(
            f"{url}: no pair has a reference under protocol {protocol}; of {len(picks)} the first is {first['id']}: "
            f"{first['reason']}. Choose another protocol, or references that hold what it needs"
        )
    return pairings


def spread_of(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """At most ``limit`` of them, evenly spread."""
    if limit is None or limit >= len(items):
        return tuple(items)
    return tuple(items[int(i)] for i in np.linspace(0, len(items) - 1, limit).round())


def pairings_key(source: ReferenceSource, pairings: tuple[Pairing, ...]) -> str:
    """Digest of the pairs measured and, where others are their references, of those too."""
    content = [source.references[p.target].content for p in pairings]
    if all(p.target == p.reference and p.half is None for p in pairings):
        return content_key(content)
    reference_kinds = [[source.references[p.reference].content, p.half] for p in pairings]
    return content_key([content, reference_kinds])


def labels_key(source: ReferenceSource, pairings: Sequence[Pairing]) -> str:
    """Digest of what is said of the pairs measured: what figures are grouped, split and labelled by."""
    picks = [source.references[p.target] for p in pairings]
    return content_key([[r.id, r.camera, r.iso, r.dataset, r.scene, r.split, r.image] for r in picks])


def middle(image: Tensor, side: int) -> Tensor:
    """The central square of (C, H, W), or what there is of it, from an even corner: the period of demosaicing keeps its
    phase."""
    y, x = (max(0, length - side) // 4 * 2 for length in image.shape[-2:])
    return image[:, y : y + side, x : x + side]


@dataclass(frozen=True)
class EvaluationPair:
    """One pair under a protocol, (C, H, W) in [0, 1]: what is imitated, and what the result is compared with."""

    real: Tensor
    clean: Tensor
    shown_noisy: Tensor
    shown_clean: Tensor


def read_pair(source: ReferenceSource, pairing: Pairing) -> EvaluationPair:
    """Read a pair and its reference."""
    target, reference = (source.references[k].id for k in (pairing.target, pairing.reference))
    images = [to_unit(image, target)[0][0] for image in source.read(pairing.target)]
    others = images
    if pairing.reference != pairing.target:
        others = [to_unit(image, reference)[0][0] for image in source.read(pairing.reference)]
    real, clean = (pairing.measured(image) for image in images)
    return EvaluationPair(real, clean, *(pairing.shown(image) for image in others))


def measured_generators(
    model: str, device: str, *, baselines: bool, compare: Sequence[str] = ()
) -> dict[str, tuple[str, str, str]]:
    """Arguments of :func:`~tasks.models.generators.load_generator` by table row: model, others, baselines."""
    names = {"model": model}
    for other in compare:
        names[_row(other, names)] = other
    names |= {name: name for name in BASELINES if baselines and name not in names.values()}  # each stands there once
    return {row: (name, device, model_digest(name)) for row, name in names.items()}


def _row(model: str, taken: Mapping[str, str]) -> str:
    """What a further generator is called in a table: a baseline by its name, else by the folder of its bundle.

    Raises:
        UserError: it is there already.
    """
    if model in taken.values():
        raise UserError(f"also: {model!r} is measured already; name each generator once")
    if model in BASELINES:
        return model
    names = [str(bundle_config(bundle_folder(model))["model"].get("baseline", ""))]
    words = [word for word in model.split("/") if word and word != "bundle"]
    names += ["/".join(words[-count:]) for count in range(1, len(words) + 1)]
    return next((name for name in names if name and name not in {*taken, *BASELINES, *_RESERVED}), model)


def compared_digests(named: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
    """By row, what the further generators of a table are: the digests of their bundles."""
    return {row: digest for row, (name, _, digest) in named.items() if row != "model" and name not in BASELINES}
