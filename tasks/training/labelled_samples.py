"""Training samples of real pairs that say which camera and ISO they are of."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pngmodel.training.samples import LabelledBatch
from tasks.training.pair_samples import PairSamples
from tasks.training.pair_sources import RealPairs


def settings_of(sources: Sequence[RealPairs]) -> list[str]:
    """The cameras with ISO values that there are pairs of, in order of their names."""
    return sorted({name for source in sources for k in range(len(source)) if (name := source.setting(k)) is not None})


class LabelledSamples(PairSamples):
    """:class:`PairSamples` of real pairs, with the index of each pair's camera and ISO in a list."""

    def __init__(
        self, real: Sequence[RealPairs], settings: Sequence[str], *, crop: int, flips: bool, seed: int
    ) -> None:
        """``settings`` is the list; see :class:`PairSamples` for the rest."""
        super().__init__(real, [], share=0.0, crop=crop, flips=flips, seed=seed)
        self._index = {name: k for k, name in enumerate(settings)}

    def __getitems__(self, numbers: Sequence[int]) -> LabelledBatch:
        pairs = super().__getitems__(numbers)
        return LabelledBatch(pairs.noisy, pairs.clean, pairs.numbers, torch.tensor([self._label(n) for n in numbers]))

    def _label(self, number: int) -> int:
        source, index, _ = self._location(number)
        assert isinstance(source, RealPairs)
        return self._index.get(source.setting(index) or "", -1)
