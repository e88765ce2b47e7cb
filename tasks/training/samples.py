"""Training samples from patch stores, cropped from regions that are whitened on demand.

A region is a crop of a patch pair, randomised and whitened separately. ``crops`` samples are cropped from each region,
and the samples of ``mix`` regions are shuffled. Sample n depends only on (seed, n), so that a training can resume at
any sample and use any number of worker processes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.network.presets import ModelConfig
from pngmodel.seeds import generator
from pngmodel.statistics.units import NoiseUnits
from pngmodel.training.samples import NoiseBatch
from pngmodel.training.settings import DataSettings
from tasks.stores.layout import ARRAYS
from tasks.stores.patch_store import PatchStore
from tasks.training.pair_samples import flip_rotate
from tasks.training.randomisation import draw_factor, randomise, source_side

_PHASE = 2  # crops start at even pixels, so that the Bayer pattern keeps its phase


@dataclass(frozen=True)
class Patch:
    """Location and data range of a training patch."""

    store: str
    row: int
    pair: str
    data_range: float
    side: int


@dataclass(frozen=True)
class Region:
    """A whitened region of a pair; tensors are (3, side, side)."""

    noise: Tensor
    """Decorrelated noise e, the target of the network."""
    whitened: Tensor
    """Whitened noise u, the input of the prompt encoder."""
    clean: Tensor
    """Clean image in [-1, 1]."""


class StoreSamples:
    """Samples of one stage. Small when pickled: each ``DataLoader`` worker opens the stores itself."""

    def __init__(
        self, stores: Sequence[PatchStore], split: str, data: DataSettings, model: ModelConfig, *, seed: int
    ) -> None:
        """List the patches without reading pixels.

        Args:
            stores: Patch stores with noisy and clean patches.
            split: Split of the stores to use.
            data: Sampling and augmentation.
            model: Settings of whitening and decorrelation.
            seed: Seed of all random choices.

        Raises:
            UserError: There are no patches of that split, or the weights do not match the datasets.
        """
        self._data, self._model, self._seed = data, model, seed
        self._patches: list[Patch] = []
        datasets: list[str] = []
        for store in stores:
            store.require(*ARRAYS)
            side = min(store.layout.height, store.layout.width)
            for row in store.table.select(["patch", "pair", "dataset", "split", "data_range"]).to_pylist():
                if row["split"] == split:
                    self._patches.append(Patch(store.url, row["patch"], row["pair"], row["data_range"], side))
                    datasets.append(row["dataset"])
        if not datasets:
            raise UserError(
                f"data.split: no patches of split {split!r} in {', '.join(s.url for s in stores)}; use a split that "
                "they have"
            )
        self._cumulated = torch.tensor(_weights(datasets, data.weights), dtype=torch.float64).cumsum(0)
        self.crop, self.reference_crop = data.region, None
        self._opened: dict[str, PatchStore] = {}
        self._regions: OrderedDict[int, Region] = OrderedDict()

    def of(self, *, crop: int, reference_crop: int | None) -> StoreSamples:
        """Return the same samples for a training stage.

        Args:
            crop: Side of the crops, pixels.
            reference_crop: Side of a second crop that provides the prompts; None: the crop itself.

        Raises:
            UserError: A crop is larger than a region or a patch.
        """
        smallest = min(min(p.side for p in self._patches), self._data.region)
        for name, side in (("crop", crop), ("reference_crop", reference_crop or 0)):
            if side > smallest:
                raise UserError(
                    f"{name}: {side} pixels is larger than the smallest region; use at most {smallest}, or larger "
                    "patches and data.region"
                )
        stage = StoreSamples.__new__(StoreSamples)
        stage.__dict__ |= self.__getstate__() | {"crop": crop, "reference_crop": reference_crop}
        return stage

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}, "_regions": OrderedDict()}

    def __len__(self) -> int:
        """Number of patches; the number of samples is unlimited."""
        return len(self._patches)

    def __getitems__(self, numbers: Sequence[int]) -> NoiseBatch:
        noise, clean, reference = [], [], []
        for number in numbers:
            region, g = self._region(self._region_of(number)), generator("crop", self._seed, number)
            window = _window(region.clean, self.crop, g)
            noise.append(region.noise[window])
            clean.append(region.clean[window])
            other = window if self.reference_crop is None else _window(region.clean, self.reference_crop, g)
            reference.append(region.whitened[other])
        return NoiseBatch(torch.stack(noise), torch.stack(clean), torch.stack(reference), torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        """Describe the pairs of these samples, for error messages."""
        pairs = sorted({self._patch(self._region_of(number)).pair for number in numbers})
        return f"cropped from {', '.join(pairs[:8])}{' and others' if len(pairs) > 8 else ''}"

    def _region_of(self, number: int) -> int:
        """Return the region of a sample. Samples are shuffled within blocks of mix * crops."""
        block, location = divmod(number, self._data.mix * self._data.crops)
        order = torch.randperm(self._data.mix * self._data.crops, generator=generator("mix", self._seed, block))
        return block * self._data.mix + int(order[location]) % self._data.mix

    def _patch(self, region: int) -> Patch:
        uniform = float(torch.rand((), generator=generator("patch", self._seed, region), dtype=torch.float64))
        index = int(torch.searchsorted(self._cumulated, uniform * float(self._cumulated[-1]), right=True))
        return self._patches[min(index, len(self._patches) - 1)]

    def _region(self, number: int) -> Region:
        found = self._regions.get(number)
        if found is None:
            found = self._regions[number] = self._make_region(number)
        self._regions.move_to_end(number)
        while len(self._regions) > self._data.mix:
            self._regions.popitem(last=False)
        return found

    def _make_region(self, number: int) -> Region:
        patch, g = self._patch(number), generator("region", self._seed, number)
        settings, side = self._data.randomise, self._data.region
        factor = draw_factor(settings, g)
        needed = source_side(side, factor or 1.0)
        if needed > patch.side:  # the patch is too small: use all of it, for a smaller region
            needed, side = patch.side, max(self._min_side(), min(side, int(patch.side * (factor or 1.0)) // 8 * 8))
        noisy, clean = self._read(patch)
        window = _window(clean, needed, g)
        noisy, clean = noisy[window], clean[window]
        if factor is not None and settings is not None:
            noisy, clean = randomise(noisy, clean, side, settings, g)
        elif side != needed:
            noisy, clean = noisy[:, :side, :side], clean[:, :side, :side]
        if self._data.flips:
            kind = int(torch.randint(8, (), generator=g))
            noisy, clean = flip_rotate(noisy, kind), flip_rotate(clean, kind)
        units = NoiseUnits(self._model)
        whitened, fitted = units.fit(noisy, clean)
        return Region(units.decorrelated(whitened, fitted), whitened, clean * 2 - 1)

    def _min_side(self) -> int:
        return max(self.crop, self.reference_crop or 0)

    def _read(self, patch: Patch) -> tuple[Tensor, Tensor]:
        """Read noisy and clean patch, (3, H, W) in [0, 1]."""
        if patch.store not in self._opened:
            self._opened[patch.store] = PatchStore.open(patch.store)
        clean, noisy = self._opened[patch.store].read(patch.row)
        white = np.float32(patch.data_range)
        return tuple(torch.from_numpy(x.astype(np.float32) / white) for x in (noisy, clean))  # type: ignore[return-value]


def _weights(datasets: list[str], weights: dict[str, float]) -> list[float]:
    """Sampling weight of each patch, from the weights of the datasets; default: equal for all patches."""
    count = Counter(datasets)
    if weights and set(weights) != set(count):
        raise UserError(
            f"data.weights: has weights for {sorted(weights)}, but the stores contain {sorted(count)}; "
            "set a weight for each dataset of the stores, or none"
        )
    if weights and sum(weights.values()) <= 0:
        raise UserError(f"data.weights: the weights {weights} sum to 0; set at least one weight above 0")
    return [weights.get(d, float(count[d])) / count[d] for d in datasets]


def _window(image: Tensor, side: int, g: torch.Generator) -> tuple[slice, slice, slice]:
    """Slices of a square crop at random even coordinates."""
    starts = [
        _PHASE * int(torch.randint((length - side) // _PHASE + 1, (), generator=g)) for length in image.shape[-2:]
    ]
    return slice(None), *(slice(start, start + side) for start in starts)  # type: ignore[return-value]
