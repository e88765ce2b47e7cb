"""Training samples of image pairs: real, synthetic, or a random mix. Sample n depends only on (seed, n)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pngmodel.errors import UserError
from pngmodel.seeds import derive_seed, generator
from pngmodel.training.samples import LabelledBatch, PairBatch
from tasks.training.pair_sources import PairSource, RealPairs


class PairSamples:
    """Random crops of pairs for the training loop.

    Each sample is synthetic with probability ``share``, independent of the number of pairs, so that a mixed training
    uses as many crops as one on real pairs. Sources with the same patches in the same order give the same clean crops.
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
            real: Sources of real pairs, sampled in proportion to their size.
            synthetic: Sources of synthetic pairs, sampled in proportion to their size.
            share: Probability that a sample is synthetic, in [0, 1].
            crop: Side of the samples, pixels.
            flips: Whether to flip and rotate samples at random.
            seed: Seed of all random choices.

        Raises:
            UserError: Required pairs are missing, or the crop is larger than the patches.
        """
        for name, side, needed in (("real", real, share < 1), ("synthetic", synthetic, share > 0)):
            if needed and not sum(map(len, side)):
                raise UserError(
                    f"share: is {share:g} (share of synthetic samples), but there are no {name} pairs; add {name} "
                    "pairs or change share"
                )
        for source in (*real, *synthetic):
            _check_crop(source, crop)
        self._sides, self._share = (tuple(real), tuple(synthetic)), share
        self._crop, self._flips, self._seed = crop, flips, seed

    def __getitems__(self, numbers: Sequence[int]) -> PairBatch:
        pairs = [self._sample(number) for number in numbers]
        noisy, clean = (torch.stack(side) for side in zip(*pairs, strict=True))
        return PairBatch(noisy, clean, torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        """Describe the pairs of these samples, for error messages."""
        names = sorted({source.name(index) for source, index, _ in map(self._location, numbers)})
        return f"cropped from {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"

    def _location(self, number: int) -> tuple[PairSource, int, torch.Generator]:
        """Return source and index of the pair of sample ``number``, and the random generator for its crop."""
        g = generator("pair", self._seed, number)
        kind, location = torch.rand(2, generator=g, dtype=torch.float64).tolist()
        side = self._sides[kind < self._share]
        ends = list(accumulate(map(len, side)))
        index = min(int(location * ends[-1]), ends[-1] - 1)
        chosen = next(k for k, end in enumerate(ends) if index < end)
        return side[chosen], index - (ends[chosen] - len(side[chosen])), g

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        source, index, g = self._location(number)
        return _crop(source, index, self._crop, self._flips, g, derive_seed("noise", self._seed, number))


def camera_settings(sources: Sequence[RealPairs]) -> list[str]:
    """Return the sorted names of the camera settings (camera and ISO) of the pairs."""
    return sorted({name for source in sources for k in range(len(source)) if (name := source.setting(k)) is not None})


class LabelledSamples(PairSamples):
    """:class:`PairSamples` of real pairs, labelled with the index of their camera setting, -1 if unknown."""

    def __init__(
        self, real: Sequence[RealPairs], settings: Sequence[str], *, crop: int, flips: bool, seed: int
    ) -> None:
        """``settings`` are the classes, see :func:`camera_settings`; other arguments as in :class:`PairSamples`."""
        super().__init__(real, [], share=0.0, crop=crop, flips=flips, seed=seed)
        self._index = {name: k for k, name in enumerate(settings)}

    def __getitems__(self, numbers: Sequence[int]) -> LabelledBatch:
        pairs = super().__getitems__(numbers)
        return LabelledBatch(pairs.noisy, pairs.clean, pairs.numbers, torch.tensor([self._label(n) for n in numbers]))

    def _label(self, number: int) -> int:
        source, index, _ = self._location(number)
        assert isinstance(source, RealPairs)
        return self._index.get(source.setting(index) or "", -1)


class FreshPairs(Dataset[dict[str, Tensor]]):
    """A dataset for a ``DataLoader``: each pair once per epoch, with a new crop and, if noise is generated, new noise.

    Items are dicts with ``noisy`` and ``clean``, (C, crop, crop) in [0, 1]. They depend only on (seed, epoch, index),
    not on the worker. Call :meth:`set_epoch` before each epoch, and start workers with ``spawn``.
    """

    def __init__(self, source: PairSource, *, crop: int, flips: bool = True, seed: int = 0) -> None:
        """
        Args:
            source: Pairs.
            crop: Side of the crops, pixels.
            flips: Whether to flip and rotate crops at random.
            seed: Seed of all random choices.

        Raises:
            UserError: The crop is larger than the patches.
        """
        _check_crop(source, crop)
        self._source, self._crop, self._flips, self._seed, self._epoch = source, crop, flips, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        location = (self._seed, self._epoch, index)
        g, noise = generator("fresh pair", *location), derive_seed("fresh noise", *location)
        noisy, clean = _crop(self._source, index, self._crop, self._flips, g, noise)
        return {"noisy": noisy, "clean": clean}


def _check_crop(source: PairSource, crop: int) -> None:
    if crop > source.side:
        raise UserError(f"crop: {crop} pixels is larger than the patches; use at most {source.side}")


def _crop(
    source: PairSource, index: int, crop: int, flips: bool, g: torch.Generator, noise: int
) -> tuple[Tensor, Tensor]:
    """Return noisy and clean crop of a pair, flipped and rotated at random; ``noise`` seeds generated noise."""
    noisy, clean = source.crop(index, crop, g, noise)
    if flips:
        kind = int(torch.randint(8, (), generator=g))
        noisy, clean = flip_rotate(noisy, kind), flip_rotate(clean, kind)
    return noisy, clean


def flip_rotate(image: Tensor, kind: int) -> Tensor:
    """Apply one of the eight symmetries of a square, ``kind`` in 0..7, to an image (C, s, s)."""
    image = image.flip(-1) if kind >= 4 else image
    return torch.rot90(image, kind % 4, dims=(-2, -1)).contiguous()
