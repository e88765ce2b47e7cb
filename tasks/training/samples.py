"""Training samples from patch stores: sample n is cut from a region that is whitened when it is needed.

A region is a part of a patch pair, randomised and whitened by itself; ``crops`` samples are cut from it, and the
samples of ``mix`` regions are shuffled. Everything about sample n follows from (seed, n), so that a training can be
resumed at any sample and its data can be made by any number of processes.
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
from tasks.training.pair_samples import turned
from tasks.training.randomisation import draw_factor, randomised, source_side

_PHASE = 2  # everything starts at even pixels, so that a sensor's 2x2 colour pattern keeps its position


@dataclass(frozen=True)
class Patch:
    """Where a training patch is and what it counts."""

    store: str
    row: int
    pair: str
    data_range: float
    side: int


@dataclass(frozen=True)
class Region:
    """A whitened part of a pair, (3, side, side) each."""

    noise: Tensor
    """e, what the network learns."""
    whitened: Tensor
    """u, what prompts are read from."""
    clean: Tensor
    """In [-1, 1]."""


class StoreSamples:
    """Samples of one stage; a ``DataLoader`` sends it to its workers, each of which opens the stores itself."""

    def __init__(
        self, stores: Sequence[PatchStore], split: str, data: DataSettings, model: ModelConfig, *, seed: int
    ) -> None:
        """Lists the patches; reads no pixels.

        Raises:
            UserError: no patch of that split, or weights that do not fit the datasets.
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
            raise UserError(f"data.split: no patch of split {split!r} in {', '.join(s.url for s in stores)}")
        self._cumulated = torch.tensor(_weights(datasets, data.weights), dtype=torch.float64).cumsum(0)
        self.crop, self.reference_crop = data.region, None
        self._opened: dict[str, PatchStore] = {}
        self._regions: OrderedDict[int, Region] = OrderedDict()

    def of(self, *, crop: int, reference_crop: int | None) -> StoreSamples:
        """The same source for a stage: side of its crops, and of the other crop that prompts come from (None: its own).

        Raises:
            UserError: a crop larger than a region or a patch.
        """
        smallest = min(min(p.side for p in self._patches), self._data.region)
        for name, side in (("crop", crop), ("reference_crop", reference_crop or 0)):
            if side > smallest:
                raise UserError(
                    f"{name}: {side} pixels is larger than the smallest region, {smallest} (data.region or the patches)"
                )
        stage = StoreSamples.__new__(StoreSamples)
        stage.__dict__ |= self.__getstate__() | {"crop": crop, "reference_crop": reference_crop}
        return stage

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}, "_regions": OrderedDict()}

    def __len__(self) -> int:
        """Patches, not samples, of which there is no end."""
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
        """Pairs that these samples were cut from."""
        pairs = sorted({self._patch(self._region_of(number)).pair for number in numbers})
        return f"cut from {', '.join(pairs[:8])}{' and others' if len(pairs) > 8 else ''}"

    def _region_of(self, number: int) -> int:
        """Samples come in blocks of mix * crops, shuffled within the block."""
        block, location = divmod(number, self._data.mix * self._data.crops)
        order = torch.randperm(self._data.mix * self._data.crops, generator=generator("mix", self._seed, block))
        return block * self._data.mix + int(order[location]) % self._data.mix

    def _patch(self, region: int) -> Patch:
        drawn = float(torch.rand((), generator=generator("patch", self._seed, region), dtype=torch.float64))
        index = int(torch.searchsorted(self._cumulated, drawn * float(self._cumulated[-1]), right=True))
        return self._patches[min(index, len(self._patches) - 1)]

    def _region(self, number: int) -> Region:
        found = self._regions.get(number)
        if found is None:
            found = self._regions[number] = self._made(number)
        self._regions.move_to_end(number)
        while len(self._regions) > self._data.mix:
            self._regions.popitem(last=False)
        return found

    def _made(self, number: int) -> Region:
        patch, g = self._patch(number), generator("region", self._seed, number)
        settings, side = self._data.randomise, self._data.region
        factor = draw_factor(settings, g)
        needed = source_side(side, factor or 1.0)
        if needed > patch.side:  # an enlarged part of a small patch, or a smaller region
            needed, side = patch.side, max(self._least(), min(side, int(patch.side * (factor or 1.0)) // 8 * 8))
        noisy, clean = self._read(patch)
        window = _window(clean, needed, g)
        noisy, clean = noisy[window], clean[window]
        if factor is not None and settings is not None:
            noisy, clean = randomised(noisy, clean, side, settings, g)
        elif side != needed:
            noisy, clean = noisy[:, :side, :side], clean[:, :side, :side]
        if self._data.flips:
            kind = int(torch.randint(8, (), generator=g))
            noisy, clean = turned(noisy, kind), turned(clean, kind)
        units = NoiseUnits(self._model)
        whitened, fitted = units.fit(noisy, clean)
        return Region(units.decorrelated(whitened, fitted), whitened, clean * 2 - 1)

    def _least(self) -> int:
        return max(self.crop, self.reference_crop or 0)

    def _read(self, patch: Patch) -> tuple[Tensor, Tensor]:
        """Noisy and clean (3, H, W) in [0, 1]."""
        if patch.store not in self._opened:
            self._opened[patch.store] = PatchStore.open(patch.store)
        clean, noisy = self._opened[patch.store].read(patch.row)
        full = np.float32(patch.data_range)
        return tuple(torch.from_numpy(x.astype(np.float32) / full) for x in (noisy, clean))  # type: ignore[return-value]


def _weights(datasets: list[str], wanted: dict[str, float]) -> list[float]:
    count = Counter(datasets)
    if wanted and set(wanted) != set(count):
        raise UserError(
            f"data.weights: names {sorted(wanted)}, the stores hold {sorted(count)}; "
            "give every dataset a share, or none"
        )
    if wanted and sum(wanted.values()) <= 0:
        raise UserError(f"data.weights: {wanted} have the sum 0; give at least one dataset a share")
    return [wanted.get(d, float(count[d])) / count[d] for d in datasets]


def _window(image: Tensor, side: int, g: torch.Generator) -> tuple[slice, slice, slice]:
    """A square at a random even place."""
    starts = [
        _PHASE * int(torch.randint((length - side) // _PHASE + 1, (), generator=g)) for length in image.shape[-2:]
    ]
    return slice(None), *(slice(start, start + side) for start in starts)  # type: ignore[return-value]
