"""Verification of pairs: images decode, match in shape and dtype, and are aligned. Also measures the noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from pngmodel.errors import TransientError, UserError
from tasks.datasets.alignment import align
from tasks.datasets.duplicates import fingerprint
from tasks.datasets.formats.limits import DamagedFileError
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.records import SIDES, PairRecord
from tasks.stores.io.filesystem import is_local
from tasks.stores.shard_file import Pixels

_STRIP = 256  # rows; bounds the memory of statistics over images of any size
_GROUP = 160  # each group reads its MATLAB file once: 8 times for the blocks of SIDD
_MAX_VALUE = 1e12  # far above any sensor count; keeps sums of squares finite

MEASURED = (
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("channels", pa.int8()),
    ("dtype", pa.string()),
    ("mean", pa.list_(pa.float32())),
    ("noise_mean", pa.list_(pa.float32())),
    ("noise_std", pa.list_(pa.float32())),
    ("noise_lag1", pa.float32()),
    ("low", pa.float32()),
    ("high", pa.float32()),
    ("shift_y", pa.int32()),
    ("shift_x", pa.int32()),
)
"""Measured columns of a verified pair: ``mean`` of the clean (or only) image and of the noise per channel, in stored
units until the catalogue divides them by the data range; ``noise_lag1``, the mean of the horizontal and vertical lag-1
autocorrelation; ``low`` and ``high``, the extremes of both images."""


@dataclass(frozen=True)
class Group:
    """Records that are read in one pass through their files."""

    records: tuple[PairRecord, ...]
    max_shift: float


@dataclass(frozen=True)
class Checked:
    """Result of a verification: measured columns and fingerprint, or the reason of rejection."""

    facts: dict[str, Any] | None
    fingerprint: bytes = b""
    reason: str | None = None


def grouped(records: Sequence[PairRecord], max_shift: float) -> list[Group]:
    """Group the records of each container file in batches of limited size; other records one by one."""
    groups = []
    for _, run in groupby(records, key=lambda r: (r.noisy, r.clean)):
        members = list(run)
        step = _GROUP if members[0].noisy_part or members[0].clean_part else 1
        groups += [Group(tuple(members[k : k + step]), max_shift) for k in range(0, len(members), step)]
    return groups


def check_group(group: Group) -> list[Checked]:
    """Read and verify the records of a group, with one pair in memory at a time.

    Records on object storage that fail are checked a second time, because range reads of objects have no checksum.

    Raises:
        TransientError: The storage failed, independent of the images.
    """
    found = _verify(group)
    failed = [k for k, result in enumerate(found) if result.facts is None]
    if failed and not all(is_local(uri) for uri in (group.records[0].noisy, group.records[0].clean) if uri):
        second = _verify(replace(group, records=tuple(group.records[k] for k in failed)))
        found = [second[failed.index(k)] if k in failed else result for k, result in enumerate(found)]
    return found


def _verify(group: Group) -> list[Checked]:
    done: list[Checked] = []
    sides = [_sides(group.records, side) for side in SIDES]
    try:
        for record, noisy, clean in zip(group.records, *sides, strict=True):
            done.append(_check(record, noisy, clean, group.max_shift))
    except TransientError:
        raise
    except DamagedFileError as error:
        return [*done, *(Checked(None, reason=str(error)) for _ in group.records[len(done) :])]
    except UserError as error:
        if len(group.records) == 1:
            return [Checked(None, reason=str(error))]
        # Verify the other records separately, so that a damaged one does not reject them.
        rest = group.records[len(done) :]
        return [*done, *(_verify(Group((record,), group.max_shift))[0] for record in rest)]
    return done


def _sides(records: Sequence[PairRecord], side: str) -> Iterator[Pixels | None]:
    locations = [record.side(side) for record in records]
    if locations[0] is None:
        return repeat(None, len(records))
    return read_pixels(
        locations[0][0], [location[1] for location in locations if location is not None]
    )  # all records of a group share their files


def _check(record: PairRecord, noisy: Pixels | None, clean: Pixels | None, max_shift: float) -> Checked:
    both = [(side, image) for side, image in zip(SIDES, (noisy, clean), strict=True) if image is not None]
    for side, image in both:
        if reason := _unusable(image, record.dtype):
            return Checked(None, reason=f"{side} {_location(record, side)} {reason}")
    # A clean image of a pair may be constant (a grey card), but not a noisy image or a single clean image.
    side, first = both[0]
    if float(first.min()) == float(first.max()):
        flat = f"{side} {_location(record, side)} is constant ({float(first.min()):g} everywhere)"
        return Checked(None, reason=flat)
    facts: dict[str, Any] = {f"{side}_sha256": pixel_digest(image) for side, image in both}
    facts |= dict(zip(("height", "width", "channels"), first.shape, strict=True)) | {"dtype": str(first.dtype)}
    facts |= {"low": min(float(i.min()) for _, i in both), "high": max(float(i.max()) for _, i in both)}
    if noisy is not None and clean is not None:
        if reason := _disagreement(record, noisy, clean):
            return Checked(None, reason=reason)
        if facts["noisy_sha256"] == facts["clean_sha256"]:
            return Checked(None, reason="noisy and clean image have the same pixels")
        alignment = align(noisy, clean)
        if alignment.moved(max_shift):
            reason = (
                f"noisy and clean image are shifted by ({alignment.dy}, {alignment.dx}) pixels (edge correlation "
                f"{alignment.shifted:.2f} with the shift, {alignment.unshifted:.2f} without)"
            )
            return Checked(None, reason=reason)
        facts |= {"shift_y": alignment.dy, "shift_x": alignment.dx} if alignment.moved(0) else {}
        facts.setdefault("shift_y", 0)
        facts.setdefault("shift_x", 0)
        facts |= _noise(noisy, clean)
    reference = clean if clean is not None else first
    facts |= {"mean": _means(reference), "top": float(reference.max())}
    return Checked(facts, fingerprint(noisy, clean))


def _location(record: PairRecord, side: str) -> str:
    location = record.side(side)
    return "" if location is None else " ".join(location).rstrip()


def _unusable(image: Pixels, dtype: str | None) -> str | None:
    if dtype is not None and str(image.dtype) != dtype:
        return f"is {image.dtype}, but the dataset is {dtype}"
    if image.dtype == np.float32:
        if not np.isfinite(image).all():
            return f"has {int((~np.isfinite(image)).sum())} values that are NaN or infinite"
        if float(image.max()) > _MAX_VALUE:
            return f"has values up to {float(image.max()):g}; at most {_MAX_VALUE:g} is allowed"
        if float(image.min()) < 0:
            return f"has negative values ({float(image.min()):g}); add the black level"
    return None


def _disagreement(record: PairRecord, noisy: Pixels, clean: Pixels) -> str | None:
    locations = {side: _location(record, side) for side in SIDES}
    if noisy.shape != clean.shape:
        return f"noisy {locations['noisy']} is {noisy.shape}, but clean {locations['clean']} is {clean.shape}"
    if noisy.dtype != clean.dtype:
        return f"noisy {locations['noisy']} is {noisy.dtype}, but clean {locations['clean']} is {clean.dtype}"
    return None


def pixel_digest(image: Pixels) -> str:
    """Return the SHA-256 of shape, dtype and pixels of an image, independent of its container format."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _means(image: Pixels) -> list[float]:
    total = sum(image[y : y + _STRIP].sum(axis=(0, 1), dtype=np.float64) for y in range(0, len(image), _STRIP))
    return [float(v) for v in np.asarray(total) / (image.shape[0] * image.shape[1])]


def _noise(noisy: Pixels, clean: Pixels) -> dict[str, Any]:
    """Mean, standard deviation and lag-1 autocorrelation of noisy - clean, computed in strips."""
    height, width, channels = clean.shape
    first, second, lag = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for y in range(0, height, _STRIP):
        noise = noisy[y : y + _STRIP].astype(np.float32) - clean[y : y + _STRIP]
        first += noise.sum(axis=(0, 1), dtype=np.float64)
        second += np.einsum("hwc,hwc->c", noise, noise, dtype=np.float64)
        lag += np.einsum("hwc,hwc->c", noise[:, 1:], noise[:, :-1], dtype=np.float64) / 2
        lag += np.einsum("hwc,hwc->c", noise[1:], noise[:-1], dtype=np.float64) / 2
    mean, power = first / (height * width), second / (height * width)
    variance = np.maximum(power - mean**2, 0.0)
    around = (
        lag / (height * width) - mean**2
    )  # neglects the missing neighbours at the border, far below the standard error
    share = np.divide(around, variance, out=np.zeros(channels), where=variance > 0)
    return {
        "noise_mean": [float(v) for v in mean],
        "noise_std": [float(v) for v in np.sqrt(variance)],
        "noise_lag1": float(np.clip(share, -1, 1).mean()),
    }
