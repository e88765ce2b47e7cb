"""Windows of clean images: crop policies and a filter of flat windows.

A corpus has hundreds of windows per photograph and may have billions in all, so they are counted and not listed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from pngmodel.seeds import derive_seed
from tasks.corpus.parameters import CropSettings
from tasks.datasets.clean_images import CleanImage, read_clean
from tasks.runtime.clusters import run_each
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.layout import peak

_AT_ONCE = 16  # images per task


@dataclass(frozen=True)
class Window:
    """A patch of a clean image: index of the image, and corner (y, x), pixels."""

    image: int
    y: int
    x: int


@dataclass(frozen=True)
class Windows:
    """All windows of some images, in order of the images.

    ``kept``: for each image the numbers of the windows that passed the filter, or None where nothing was filtered.
    """

    images: tuple[CleanImage, ...]
    cropping: CropSettings
    seed: int
    kept: tuple[tuple[int, ...], ...] | None = None

    @cached_property
    def _starts(self) -> list[int]:
        """Index of the first window of each image, then the total."""
        if self.kept is not None:
            return [0, *accumulate(map(len, self.kept))]
        return [0, *accumulate(count(self.cropping, image.height, image.width) for image in self.images)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Window:
        k = bisect_right(self._starts, number) - 1
        local = number - self._starts[k]
        if self.kept is not None:
            local = self.kept[k][local]
        return Window(k, *corner(self.cropping, self.seed, self.images[k], local))


def count(cropping: CropSettings, height: int, width: int) -> int:
    """Number of windows of an image of this size, before filtering."""
    if min(height, width) < cropping.crop:
        return 0
    if cropping.crop_policy == "centre":
        return 1
    if cropping.crop_policy == "random":
        return min(cropping.crops_per_image, (height - cropping.crop + 1) * (width - cropping.crop + 1))
    return _along(cropping, height) * _along(cropping, width)


def _along(cropping: CropSettings, side: int) -> int:
    return -(-(side - cropping.crop) // (cropping.stride or cropping.crop)) + 1


def corner(cropping: CropSettings, seed: int, image: CleanImage, local: int) -> tuple[int, int]:
    """(y, x) of window ``local`` of an image."""
    free = image.height - cropping.crop, image.width - cropping.crop
    if cropping.crop_policy == "centre":
        return free[0] // 2, free[1] // 2
    if cropping.crop_policy == "random":
        return _drawn_corners(seed, image.id, *free, count(cropping, image.height, image.width))[local]
    row, column = divmod(local, _along(cropping, image.width))
    step = cropping.stride or cropping.crop
    return min(row * step, free[0]), min(column * step, free[1])


@lru_cache(maxsize=1024)
def _drawn_corners(seed: int, image: str, rows: int, columns: int, number: int) -> tuple[tuple[int, int], ...]:
    """Random corners (y, x) of an image, all different: equal windows would get equal noise."""
    found: dict[tuple[int, int], None] = {}
    attempt = 0
    while len(found) < number:
        # remainders of 63 bits: a bias of one in 10^14
        y, x = (derive_seed("crop", seed, image, attempt, axis) for axis in ("y", "x"))
        found[y % (rows + 1), x % (columns + 1)] = None
        attempt += 1
    return tuple(found)


@dataclass(frozen=True)
class _Look:
    url: str
    digest: str
    images: tuple[CleanImage, ...]
    cropping: CropSettings
    seed: int


def textured(
    url: str, digest: str, images: Sequence[CleanImage], cropping: CropSettings, seed: int, cluster: ClusterConfig
) -> tuple[tuple[int, ...], ...] | None:
    """Windows that are not flat, by image; None if there is no limit."""
    if cropping.min_clean_std == 0:
        return None
    looks = [
        _Look(url, digest, tuple(images[k : k + _AT_ONCE]), cropping, seed) for k in range(0, len(images), _AT_ONCE)
    ]
    found = {look.images[0].id: kept for look, kept in run_each(cluster, _kept, looks)}
    return tuple(numbers for look in looks for numbers in found[look.images[0].id])


def _kept(look: _Look) -> list[tuple[int, ...]]:
    return [_textured(read_clean(look.url, look.digest, image), image, look) for image in look.images]


def _textured(pixels: NDArray[np.generic], image: CleanImage, look: _Look) -> tuple[int, ...]:
    size, least = look.cropping.crop, look.cropping.min_clean_std * peak(image.dtype)
    kept = []
    for local in range(count(look.cropping, image.height, image.width)):
        y, x = corner(look.cropping, look.seed, image, local)
        # per channel: a uniformly coloured wall is flat
        if pixels[y : y + size, x : x + size].std(axis=(0, 1)).mean() >= least:
            kept.append(local)
    return tuple(kept)
