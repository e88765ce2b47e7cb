"""Selection of the pairs of an evaluation with their references, and of the generators to evaluate."""

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
from tasks.evaluation.reference_protocols import Pairing, Pairings, pair_references
from tasks.models.generators import bundle_folder, model_digest
from tasks.runtime.provenance import content_key

Item = TypeVar("Item")
_RESERVED = ("model", "uncalibrated", "floor")  # row names with a fixed meaning


def select_pairings(
    source: ReferenceSource, url: str, *, split: str | None, camera: str | None, protocol: Protocol, seed: int
) -> Pairings:
    """Select the pairs of a split and camera and assign a reference to each.

    Args:
        source: Real pairs.
        url: Location of the source, named in errors.
        split: Only pairs of this split; default all.
        camera: Only pairs of this camera; default all.
        protocol: Reference protocol, see :mod:`tasks.evaluation.reference_protocols`.
        seed: Seed of the choice of references.

    Raises:
        UserError: There are no pairs of that split or camera, or none of them has a reference.
    """
    picks = [k for k in source.of_split(split) if camera in (None, source.references[k].camera)]
    if not picks:
        cameras = sorted({str(r.camera) for r in source.references})
        raise UserError(f"{url}: no pairs of camera {camera!r}; available cameras: {cameras}")
    pairings = pair_references(source.references, picks, protocol, seed)
    if not pairings.found:
        first = pairings.skipped[0]
        raise UserError(
            f"{url}: no pair has a reference under protocol {protocol} (first of {len(picks)}: {first['id']}: "
            f"{first['reason']}); use another protocol or other references"
        )
    return pairings


def evenly_spaced(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """Return at most ``limit`` items, evenly spaced."""
    if limit is None or limit >= len(items):
        return tuple(items)
    return tuple(items[int(i)] for i in np.linspace(0, len(items) - 1, limit).round())


def pairings_key(source: ReferenceSource, pairings: tuple[Pairing, ...]) -> str:
    """Digest of the evaluated pairs, and of their references if these are other pairs."""
    content = [source.references[p.target].content for p in pairings]
    if all(p.target == p.reference and p.half is None for p in pairings):
        return content_key(content)
    reference_kinds = [[source.references[p.reference].content, p.half] for p in pairings]
    return content_key([content, reference_kinds])


def labels_key(source: ReferenceSource, pairings: Sequence[Pairing]) -> str:
    """Digest of the metadata of the evaluated pairs, by which metrics are grouped and labelled."""
    picks = [source.references[p.target] for p in pairings]
    return content_key([[r.id, r.camera, r.iso, r.dataset, r.scene, r.split, r.image] for r in picks])


def central_square(image: Tensor, side: int) -> Tensor:
    """Crop an image (C, H, W) to its centre, at most ``side`` pixels, at even coordinates to keep the Bayer phase."""
    y, x = (max(0, length - side) // 4 * 2 for length in image.shape[-2:])
    return image[:, y : y + side, x : x + side]


@dataclass(frozen=True)
class EvaluationPair:
    """A real pair, and the reference pair that provides the prompts. Images are (C, H, W) in [0, 1]."""

    real: Tensor
    clean: Tensor
    reference_noisy: Tensor
    reference_clean: Tensor


def read_pair(source: ReferenceSource, pairing: Pairing) -> EvaluationPair:
    """Read a pair and its reference."""
    target, reference = (source.references[k].id for k in (pairing.target, pairing.reference))
    images = [to_unit(image, target)[0][0] for image in source.read(pairing.target)]
    others = images
    if pairing.reference != pairing.target:
        others = [to_unit(image, reference)[0][0] for image in source.read(pairing.reference)]
    real, clean = (pairing.target_part(image) for image in images)
    return EvaluationPair(real, clean, *(pairing.reference_part(image) for image in others))


def generators_by_row(
    model: str, device: str, *, baselines: bool, compare: Sequence[str] = ()
) -> dict[str, tuple[str, str, str]]:
    """Return the generators to evaluate by table row, as arguments of :func:`~tasks.models.generators.load_generator`.

    Args:
        model: Generator of the row ``model``.
        device: Device of all generators.
        baselines: Whether to add all baselines.
        compare: More generators, each a row.

    Raises:
        UserError: A generator is named twice.
    """
    names = {"model": model}
    for other in compare:
        names[_row(other, names)] = other
    names |= {name: name for name in BASELINES if baselines and name not in names.values()}  # no baseline twice
    return {row: (name, device, model_digest(name)) for row, name in names.items()}


def _row(model: str, taken: Mapping[str, str]) -> str:
    """Return the table row of an additional generator: the name of a baseline, else the folder of its bundle.

    Raises:
        UserError: The generator is already in the table.
    """
    if model in taken.values():
        raise UserError(f"compare: generator {model!r} is named twice; name each generator once")
    if model in BASELINES:
        return model
    names = [str(bundle_config(bundle_folder(model))["model"].get("baseline", ""))]
    parts = [part for part in model.split("/") if part and part != "bundle"]
    names += ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    return next((name for name in names if name and name not in {*taken, *BASELINES, *_RESERVED}), model)


def compared_digests(named: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
    """Return the bundle digests of the additional generators by table row."""
    return {row: digest for row, (name, _, digest) in named.items() if row != "model" and name not in BASELINES}
