"""Which noise a generator is shown for a pair: the reference protocols A, B, C and D.

A    the pair's own noise.
B    another crop of the same image: a patch of the same image that does not overlap it where the store has one, else
     the image is halved across its longer side; one half is measured, the other is the reference.
C    another image of the same camera and ISO; of another scene where there is one.
D    an image of another camera.

A partner is drawn by a seed from the ids alone: the camera first (D), then the image, then the patch, each with equal
chances. It comes from the same split. What has no partner is named with its reason.
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
"""Dataset and id: what a whole image is called, however it is cut."""

_SMALLEST = 16  # pixels a side; metrics and generators take no smaller image
Item = TypeVar("Item")

OWN = "the pair itself"
OTHER_PATCH, OTHER_HALF = "another patch of the image", "the other half of the image"
OTHER_SCENE, SAME_SCENE = "an image of another scene", "another image of the same scene"
OTHER_CAMERA = "an image of another camera"


@dataclass(frozen=True)
class Pairing:
    """A measured pair and where its prompts come from; indices in the source's references."""

    target: int
    reference: int
    kind: str
    half: int | None = None
    """Where the image is halved: which half is measured, 0 (top or left) or 1."""

    def measured(self, image: Tensor) -> Tensor:
        """The part of the target's image (C, H, W) that figures are made of."""
        return image if self.half is None else _halves(image)[self.half]

    def shown(self, image: Tensor) -> Tensor:
        """The part of the partner's image (C, H, W) that prompts are made of."""
        return image if self.half is None else _halves(image)[1 - self.half]


@dataclass(frozen=True)
class Pairings:
    """What every pair is measured with, and the pairs that cannot be: id and reason."""

    found: tuple[Pairing, ...]
    skipped: tuple[dict[str, str], ...]


def paired(references: Sequence[Reference], picks: Sequence[int], protocol: Protocol, seed: int) -> Pairings:
    """Find a partner for each of ``picks`` among those that share its split and are in ``references``."""
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
    """References by what the protocols ask for. Sorted, so that a choice depends on ids and not on their order."""

    def __init__(self, references: Sequence[Reference], protocol: Protocol, seed: int) -> None:
        self._references, self._protocol, self._seed = references, protocol, seed
        self._others: dict[tuple[object, ...], tuple[list[Image], str]] = {}

    @cached_property
    def _patches(self) -> dict[tuple[str, Image], list[int]]:
        """By split and image."""
        found: dict[tuple[str, Image], list[int]] = {}
        for k in sorted(range(len(self._references)), key=lambda k: self._references[k].id):
            reference = self._references[k]
            if not _tiny(reference):
                found.setdefault((reference.split, _image(reference)), []).append(k)
        return found

    @cached_property
    def _cameras(self) -> dict[str, dict[str, dict[Image, Reference]]]:
        """By split and camera: images, each with one of its patches. Unknown cameras are nobody's partner."""
        found: dict[str, dict[str, dict[Image, Reference]]] = {}
        for (split, image), patches in sorted(self._patches.items()):
            first = self._references[patches[0]]
            if first.camera is not None:
                found.setdefault(split, {}).setdefault(first.camera, {})[image] = first
        return found

    def reference(self, k: int) -> Pairing | str:
        """A pairing, or why there is none."""
        target = self._references[k]
        if _tiny(target):
            return f"has {target.height} x {target.width} pixels, fewer than {_SMALLEST} x {_SMALLEST}"
        if self._protocol == "A":
            return Pairing(k, k, OWN)
        if self._protocol == "B":
            return self._other_crop(k, target)
        if target.camera is None:
            return "its camera is not known"
        if self._protocol == "C":
            return self._same_camera(k, target)
        return self._other_camera(k, target)

    def _drawn(self, choices: Sequence[Item], what: str, target: Reference) -> Item:
        return choices[derive_seed("partner", self._protocol, what, self._seed, target.id) % len(choices)]

    def _patch_of(self, image: Image, target: Reference) -> int:
        return self._drawn(self._patches[target.split, image], "patch", target)

    def _other_crop(self, k: int, target: Reference) -> Pairing | str:
        others = [p for p in self._patches[target.split, _image(target)] if _apart(target, self._references[p])]
        if others:
            return Pairing(k, self._drawn(others, "patch", target), OTHER_PATCH)
        size = sorted((target.height, target.width))
        if size[0] < _SMALLEST or size[1] // 2 < _SMALLEST:
            return (
                f"its image has no other patch, and {target.height} x {target.width} pixels give no two halves of at "
                f"least {_SMALLEST} x {_SMALLEST}"
            )
        return Pairing(k, k, OTHER_HALF, half=derive_seed("half", self._seed, target.id) % 2)

    def _same_camera(self, k: int, target: Reference) -> Pairing | str:
        if target.iso is None:
            return "its ISO is not known"
        own, scene = _image(target), (target.dataset, target.scene)
        key = (target.split, target.camera, target.iso, scene)
        if key not in self._others:
            alike = self._cameras[target.split][str(target.camera)].items()
            same = [(image, reference) for image, reference in alike if reference.iso == target.iso]
            elsewhere = [image for image, reference in same if (reference.dataset, reference.scene) != scene]
            # Also the target's own image, so that one list serves all targets of the scene.
            self._others[key] = (elsewhere, OTHER_SCENE) if elsewhere else ([image for image, _ in same], SAME_SCENE)
        images, kind = self._others[key]
        if kind == OTHER_SCENE:
            return Pairing(k, self._patch_of(self._drawn(images, "image", target), target), kind)
        if len(images) == 1:
            return f"there is no other image of camera {target.camera} at ISO {target.iso}"
        # Drawn among the others without a list of them for every target: the own image is stepped over.
        location = self._drawn(range(len(images) - 1), "image", target)
        image = images[location + (location >= bisect_left(images, own))]
        return Pairing(k, self._patch_of(image, target), kind)

    def _other_camera(self, k: int, target: Reference) -> Pairing | str:
        cameras = [camera for camera in self._cameras[target.split] if camera != target.camera]
        if not cameras:
            return f"there is no other camera than {target.camera}"
        camera = self._drawn(cameras, "camera", target)
        key = (target.split, camera)
        if key not in self._others:
            self._others[key] = ([*self._cameras[target.split][camera]], OTHER_CAMERA)
        images, _ = self._others[key]
        return Pairing(k, self._patch_of(self._drawn(images, "image", target), target), OTHER_CAMERA)


def _tiny(reference: Reference) -> bool:
    return min(reference.height, reference.width) < _SMALLEST


def _apart(one: Reference, other: Reference) -> bool:
    """Whether two windows of one image share no pixel."""
    return abs(one.y - other.y) >= min(one.height, other.height) or abs(one.x - other.x) >= min(one.width, other.width)
