"""Training samples of pairs: real, synthetic, or each by chance. Sample n follows from (seed, n) alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pngmodel.errors import UserError
from pngmodel.seeds import derive_seed, generator
from pngmodel.training.samples import PairBatch
from tasks.training.pair_sources import PairSource


class PairSamples:
    """Crops of pairs, for the training loop.

    Each sample is synthetic with probability ``share``, whatever the sizes of both sides, so that a mixed training
    has as many crops as one on real pairs alone. Sources that hold the same patches in the same order are drawn from
    alike: two trainings then see the same clean images.
    """

    def __init__(
        self,
        real: Sequence[PairSource],
        synthetic: Sequence[PairSource],
        *,
        share: float,
        crop: int,
        flips: bool,
        seed: int,
    ) -> None:
        """
        Args:
            real: sources of real pairs, drawn from by their size.
            synthetic: sources of synthetic pairs, likewise.
            share: probability that a sample is synthetic.
            crop: side of the samples, pixels.
            flips: whether samples are mirrored and turned by right angles at random.
            seed: of everything that is drawn.

        Raises:
            UserError: a side that is needed is empty, or a crop larger than the patches.
        """
        for name, side, needed in (("real", real, share < 1), ("synthetic", synthetic, share > 0)):
            if needed and not sum(map(len, side)):
                raise UserError(f"share: {share:g} of the samples are synthetic, but there are no {name} pairs")
        for source in (*real, *synthetic):
            _require_room(source, crop)
        self._sides, self._share = (tuple(real), tuple(synthetic)), share
        self._crop, self._flips, self._seed = crop, flips, seed

    def __getitems__(self, numbers: Sequence[int]) -> PairBatch:
        pairs = [self._sample(number) for number in numbers]
        noisy, clean = (torch.stack(side) for side in zip(*pairs, strict=True))
        return PairBatch(noisy, clean, torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        """Pairs that these samples were cut from."""
        names = sorted({source.name(index) for source, index, _ in map(self._location, numbers)})
        return f"cut from {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"

    def _location(self, number: int) -> tuple[PairSource, int, torch.Generator]:
        """Which pair sample ``number`` is cut from, and what the rest of it is drawn from."""
        g = generator("pair", self._seed, number)
        kind, location = torch.rand(2, generator=g, dtype=torch.float64).tolist()
        side = self._sides[kind < self._share]
        ends = list(accumulate(map(len, side)))
        index = min(int(location * ends[-1]), ends[-1] - 1)
        chosen = next(k for k, end in enumerate(ends) if index < end)
        return side[chosen], index - (ends[chosen] - len(side[chosen])), g

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        source, index, g = self._location(number)
        return _cut(source, index, self._crop, self._flips, g, derive_seed("noise", self._seed, number))


class FreshPairs(Dataset[dict[str, Tensor]]):
    """A source's pairs for a ``DataLoader``: each once an epoch, at a new place, with new noise where noise is made.

    An item has ``noisy`` and ``clean``, (C, crop, crop) in [0, 1]. It follows from (seed, epoch, index), whichever
    worker makes it. Call :meth:`set_epoch` before each epoch, and spawn workers.
    """

    def __init__(self, source: PairSource, *, crop: int, flips: bool = True, seed: int = 0) -> None:
        """Raises UserError when the crop is larger than the patches."""
        _require_room(source, crop)
        self._source, self._crop, self._flips, self._seed, self._epoch = source, crop, flips, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        location = (self._seed, self._epoch, index)
        g, noise = generator("fresh pair", *location), derive_seed("fresh noise", *location)
        noisy, clean = _cut(self._source, index, self._crop, self._flips, g, noise)
        return {"noisy": noisy, "clean": clean}


def _require_room(source: PairSource, crop: int) -> None:
    if crop > source.side:
        raise UserError(f"crop: {crop} pixels is larger than the patches, {source.side}; choose fewer")


def _cut(
    source: PairSource, index: int, crop: int, flips: bool, g: torch.Generator, noise: int
) -> tuple[Tensor, Tensor]:
    """Noisy and clean crop of one pair, turned; ``noise``: seed of noise that is made for it."""
    noisy, clean = source.crop(index, crop, g, noise)
    if flips:
        kind = int(torch.randint(8, (), generator=g))
        noisy, clean = turned(noisy, kind), turned(clean, kind)
    return noisy, clean


def turned(image: Tensor, kind: int) -> Tensor:
    """One of the eight symmetries of a square, of (C, s, s)."""
    image = image.flip(-1) if kind >= 4 else image
    return torch.rot90(image, kind % 4, dims=(-2, -1)).contiguous()
