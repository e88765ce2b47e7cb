"""Measurement of one denoiser on one test set: PSNR and SSIM of every image, and a key of all inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from pngmodel.images import to_unit
from pngmodel.metrics.fidelity import Protocol, psnr, ssim
from tasks.datasets.reference_pairs import ReferenceSource, open_pairs, planned_references
from tasks.denoising.parameters import TestSet
from tasks.evaluation.pair_selection import evenly_spaced
from tasks.models.denoisers import CLASSICAL, denoiser_digest, load_denoiser
from tasks.models.generators import bundle_folder, one_thread
from tasks.runtime.provenance import content_key, evaluation_version

CEILING = 100.0
"""Maximum PSNR in dB, used for identical images, so that means stay finite."""
NOISY = "noisy"
"""Table row of the noisy images without denoising."""


@dataclass(frozen=True)
class Candidate:
    """A denoiser in a comparison: one seed of an arm."""

    arm: str
    seed: int
    denoiser: str
    digest: str


@dataclass(frozen=True)
class Measurement:
    """Task of a worker: one denoiser, or the noisy images without denoising, on one test set."""

    candidate: Candidate
    device: str
    test: str
    source: tuple[str, str]
    pairs: tuple[int, ...]
    content: str
    protocol: Protocol

    @property
    def key(self) -> str:
        """Digest of everything the metrics depend on, except the kind of device."""
        return content_key([self.candidate.digest, self.content, self.protocol, evaluation_version()])


def candidates(denoisers: list[str]) -> list[Candidate]:
    """List the denoisers of an evaluation.

    Args:
        denoisers: Output folders of `train-denoiser`, bundles, or names of classical denoisers.

    Raises:
        UserError: A location has no denoiser, or two denoisers have the same arm and seed.
    """
    found: list[Candidate] = []
    for location in denoisers:
        if location in CLASSICAL:
            found.append(Candidate(location, 0, location, denoiser_digest(location)))
            continue
        bundles = [str(path) for path in sorted(Path(location).glob("*/seed-*/bundle"))] or [location]
        for bundle in bundles:
            training = bundle_config(bundle_folder(bundle)).get("training", {})
            arm, seed = training.get("arm", {}).get("name", Path(location).name), int(training.get("seed", 0))
            found.append(Candidate(arm, seed, bundle, denoiser_digest(bundle)))
    locations: dict[tuple[str, int], str] = {}
    for one in found:
        if (other := locations.setdefault((one.arm, one.seed), one.denoiser)) != one.denoiser:
            raise UserError(
                f"{one.denoiser}: has arm {one.arm!r} and seed {one.seed}, as has {other}; remove one of them"
            )
    return found


def select_pairs(test: TestSet) -> tuple[ReferenceSource, tuple[int, ...]]:
    """Open the source of a test set; return it and the indices of the selected pairs.

    Raises:
        UserError: There are no pairs of that split and camera.
    """
    source = open_pairs(test.references)
    picks = [k for k in source.of_split(test.split) if test.camera in (None, source.references[k].camera)]
    if not picks:
        cameras = sorted({str(r.camera) for r in source.references})
        raise UserError(f"{test.references}: no pairs of camera {test.camera!r}; available cameras: {cameras}")
    return source, tuple(evenly_spaced(picks, test.limit))


def pair_of(source: ReferenceSource, k: int) -> tuple[Tensor, Tensor]:
    """Read noisy and clean image of pair ``k``, (C, H, W) in [0, 1]."""
    noisy, clean = (to_unit(image, source.references[k].id)[0][0] for image in source.read(k))
    return noisy, clean


@one_thread()
def denoised(candidate: Candidate, device: str, noisy: Tensor) -> Tensor:
    """Denoise an image (C, H, W) in [0, 1], without rounding. The candidate ``noisy`` returns the image unchanged."""
    if candidate.arm == NOISY and not candidate.denoiser:
        return noisy
    return load_denoiser(candidate.denoiser, device, candidate.digest).run(noisy[None])[0]


def measure(task: Measurement) -> list[dict[str, Any]]:
    """Measure PSNR (dB, at most :data:`CEILING`) and SSIM of every image, in order."""
    source, rows = planned_references(*task.source), []
    for k in task.pairs:
        noisy, clean = pair_of(source, k)
        image = denoised(task.candidate, task.device, noisy)
        rows.append(
            {
                "id": source.references[k].id,
                "scene": source.references[k].scene,
                "psnr": min(psnr(image, clean, task.protocol), CEILING),
                "ssim": ssim(image, clean, task.protocol),
            }
        )
    return rows
