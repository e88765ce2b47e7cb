"""Reference protocols A, B, C and D: which pair provides the noise reference for an evaluated pair.

A    the pair itself.
B    another crop of the same image: a patch that does not overlap the pair if the store has one; else the image is
     split in half across its longer side, one half is evaluated and the other is the reference.
C    another image of the same camera and ISO, of another scene if possible.
D    an image of another camera.

The reference is chosen uniformly by seed and ids: first the camera (D), then the image, then the patch. It has the same
split as the evaluated pair. Pairs without a reference are listed with a reason.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from pngmodel.seeds import derive_seed
from tasks.datasets.reference_pairs import Reference
from tasks.evaluation.parameters import Protocol

Image = tuple[str, str]
"""Dataset and id of a whole image; its patches share them."""

_SMALLEST = 16  # pixels per side, the minimum for metrics and generators
Item = TypeVar("Item")

OWN = "the pair itself"
OTHER_PATCH, OTHER_HALF = "another patch of the image", "the other half of the image"
OTHER_SCENE, SAME_SCENE = "an image of another scene", "another image of the same scene"
OTHER_CAMERA = "an image of another camera"


@dataclass(frozen=True)
class Pairing:
    """An evaluated pair and its reference, as indices in the references of the source."""

    target: int
    reference: int
    kind: str
    half: int | None = None
    """If the image is split in half, the evaluated half: 0 (top or left) or 1."""

    def target_part(self, image: Tensor) -> Tensor:
        """Return the evaluated part of the target image (C, H, W)."""
        return image if self.half is None else _halves(image)[self.half]

    def reference_part(self, image: Tensor) -> Tensor:
        """Return the part of the reference image (C, H, W) that provides the prompts."""
        return image if self.half is None else _halves(image)[1 - self.half]


@dataclass(frozen=True)
class Pairings:
    """Pairings, and the pairs without a reference as ``id`` and ``reason``."""

    found: tuple[Pairing, ...]
    skipped: tuple[dict[str, str], ...]


def pair_references(references: Sequence[Reference], picks: Sequence[int], protocol: Protocol, seed: int) -> Pairings:
    """Assign a reference from ``references`` to each pair in ``picks`` (indices in ``references``)."""
    index = _Index(references, protocol, seed)
    found: list[Pairing] = []
    skipped: list[dict[str, str]] = []
    for k in picks:
        answer = index.reference(k)
        if isinstance(answer, Pairing):
            found.append(answer)
        else:
            skipped.append({"id": references[k].id, "reason": answer})
    return Pairings(tuple(found), tuple(skipped))


def _halves(image: Tensor) -> tuple[Tensor, Tensor]:
    axis = 1 if image.shape[1] > image.shape[2] else 2
    middle = image.shape[axis] // 2
    return image.narrow(axis, 0, middle), image.narrow(axis, middle, image.shape[axis] - middle)


def _image(reference: Reference) -> Image:
    return reference.dataset, reference.image


class _Index:
    """References grouped for the protocols; sorted, so that choices depend on ids and not on their order."""

    def __init__(self, references: Sequence[Reference], protocol: Protocol, seed: int) -> None:
        self._references, self._protocol, self._seed = references, protocol, seed
        self._others: dict[tuple[object, ...], tuple[list[Image], str]] = {}

    @cached_property
    def _patches(self) -> dict[tuple[str, Image], list[int]]:
        """Indices of references by split and image."""
        found: dict[tuple[str, Image], list[int]] = {}
        for k in sorted(range(len(self._references)), key=lambda k: self._references[k].id):
            reference = self._references[k]
            if not _tiny(reference):
                found.setdefault((reference.split, _image(reference)), []).append(k)
        return found

    @cached_property
    def _cameras(self) -> dict[str, dict[str, dict[Image, Reference]]]:
        """Images by split and camera, each with one of its patches. Images of unknown cameras are excluded."""
        found: dict[str, dict[str, dict[Image, Reference]]] = {}
        for (split, image), patches in sorted(self._patches.items()):
            first = self._references[patches[0]]
            if first.camera is not None:
                found.setdefault(split, {}).setdefault(first.camera, {})[image] = first
        return found

    def reference(self, k: int) -> Pairing | str:
        """Return the pairing of reference ``k``, or the reason why there is none."""
        target = self._references[k]
        if _tiny(target):
            return f"has {target.height} x {target.width} pixels, fewer than {_SMALLEST} x {_SMALLEST}"
        if self._protocol == "A":
            return Pairing(k, k, OWN)
        if self._protocol == "B":
            return self._other_crop(k, target)
        if target.camera is None:
            return "the camera is unknown"
        if self._protocol == "C":
            return self._same_camera(k, target)
        return self._other_camera(k, target)

    def _choose(self, choices: Sequence[Item], what: str, target: Reference) -> Item:
        return choices[derive_seed("partner", self._protocol, what, self._seed, target.id) % len(choices)]

    def _patch_of(self, image: Image, target: Reference) -> int:
        return self._choose(self._patches[target.split, image], "patch", target)

    def _other_crop(self, k: int, target: Reference) -> Pairing | str:
        others = [p for p in self._patches[target.split, _image(target)] if _apart(target, self._references[p])]
        if others:
            return Pairing(k, self._choose(others, "patch", target), OTHER_PATCH)
        size = sorted((target.height, target.width))
        if size[0] < _SMALLEST or size[1] // 2 < _SMALLEST:
            return (
                f"the image has no other patch, and {target.height} x {target.width} pixels cannot be split into "
                f"halves of at least {_SMALLEST} x {_SMALLEST}"
            )
        return Pairing(k, k, OTHER_HALF, half=derive_seed("half", self._seed, target.id) % 2)

    def _same_camera(self, k: int, target: Reference) -> Pairing | str:
        if target.iso is None:
            return "the ISO is unknown"
        own, scene = _image(target), (target.dataset, target.scene)
        key = (target.split, target.camera, target.iso, scene)
        if key not in self._others:
            of_camera = self._cameras[target.split][str(target.camera)].items()
            same = [(image, reference) for image, reference in of_camera if reference.iso == target.iso]
            elsewhere = [image for image, reference in same if (reference.dataset, reference.scene) != scene]
            # The list includes the image of the target, so that all targets of the scene can share it.
            self._others[key] = (elsewhere, OTHER_SCENE) if elsewhere else ([image for image, _ in same], SAME_SCENE)
        images, kind = self._others[key]
        if kind == OTHER_SCENE:
            return Pairing(k, self._patch_of(self._choose(images, "image", target), target), kind)
        if len(images) == 1:
            return f"there is no other image of camera {target.camera} at ISO {target.iso}"
        # Choose among the other images without building a list per target: skip the position of the target's image.
        position = self._choose(range(len(images) - 1), "image", target)
        image = images[position + (position >= bisect_left(images, own))]
        return Pairing(k, self._patch_of(image, target), kind)

    def _other_camera(self, k: int, target: Reference) -> Pairing | str:
        cameras = [camera for camera in self._cameras[target.split] if camera != target.camera]
        if not cameras:
            return f"there is no camera other than {target.camera}"
        camera = self._choose(cameras, "camera", target)
        key = (target.split, camera)
        if key not in self._others:
            self._others[key] = ([*self._cameras[target.split][camera]], OTHER_CAMERA)
        images, _ = self._others[key]
        return Pairing(k, self._patch_of(self._choose(images, "image", target), target), OTHER_CAMERA)


def _tiny(reference: Reference) -> bool:
    return min(reference.height, reference.width) < _SMALLEST


def _apart(one: Reference, other: Reference) -> bool:
    """Return whether two crops of the same image do not overlap."""
    return abs(one.y - other.y) >= min(one.height, other.height) or abs(one.x - other.x) >= min(one.width, other.width)
