"""Selects the reference of every sample. The choice depends on the sample only, not on order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from pngmodel.errors import UserError
from pngmodel.seeds import derive_seed
from tasks.corpus.parameters import ReferencePolicy
from tasks.datasets.clean_images import CleanImage
from tasks.datasets.reference_pairs import ReferenceSource

Identity = tuple[int | str, ...]
_UNIT = 2.0**-63  # seeds have 63 bits
_SHIPPED_SUFFIX = "_clean.png"


class ReferenceSelector:
    """Selects references by a policy.

    uniform: any reference; own: the one with the clean image's id; camera: any of the clean image's camera;
    cameras: a camera first, by ``weights`` or all alike, then any of its references.
    """

    def __init__(
        self,
        references: ReferenceSource,
        reference_policy: ReferencePolicy,
        split: str | None,
        weights: Mapping[str, float] | None,
    ) -> None:
        """
        Raises:
            UserError: no reference of that split or camera.
        """
        self._assign: ReferencePolicy = "cameras" if weights else reference_policy
        usable = references.of_split(split)
        self._by_id: dict[str, list[int]] = {}
        self._by_camera: dict[str, list[int]] = {}
        for k in usable:
            reference = references.references[k]
            self._by_id.setdefault(reference.id, []).append(k)
            self._by_camera.setdefault(str(reference.camera), []).append(k)
        if unknown := set(weights or ()) - set(self._by_camera):
            raise UserError(
                f"weights: no reference of camera {sorted(unknown)}; there are {', '.join(sorted(self._by_camera))}"
            )
        self._cameras = sorted(camera for camera in self._by_camera if weights is None or weights.get(camera, 0) > 0)
        self._shares = list(accumulate((weights or {}).get(camera, 1.0) for camera in self._cameras))
        self.usable = [k for k in usable if not weights or str(references.references[k].camera) in self._cameras]

    def reference(self, identity: Identity, clean: CleanImage) -> int:
        """Index of the reference of a sample.

        Raises:
            UserError: the policy has none for this clean image.
        """
        candidates = self._candidates(identity, clean)
        if len(candidates) == 1:
            return candidates[0]
        return candidates[derive_seed("reference", *identity) % len(candidates)]

    def _candidates(self, identity: Identity, clean: CleanImage) -> list[int]:
        if self._assign == "uniform":
            return self.usable
        if self._assign == "cameras":
            location = derive_seed("camera", *identity) * _UNIT * self._shares[-1]
            return self._by_camera[self._cameras[min(bisect_right(self._shares, location), len(self._cameras) - 1)]]
        if self._assign == "camera":
            if str(clean.camera) in self._by_camera and clean.camera is not None:
                return self._by_camera[clean.camera]
            raise UserError(
                f"clean image {clean.id!r} has camera {clean.camera!r}, of which there is no reference (there are "
                f"{', '.join(sorted(self._by_camera))}); assign 'camera' needs clean images from a patch store or "
                "catalogue of the references' cameras"
            )
        own = clean.id.removesuffix(_SHIPPED_SUFFIX)
        found = self._by_id.get(own, [])
        if len(found) != 1:
            raise UserError(
                f"{len(found)} references are called {own!r}; assign 'own' needs clean images and references from one "
                "patch store or catalogue (or use 'uniform')"
            )
        return found
