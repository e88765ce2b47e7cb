"""Patch stores for PyTorch: a map-style dataset, and a shuffled order that resumes at any sample.

patches = PatchDataset("/data/patches", split="train")
order = ShuffledOrder(patches, seed=1, start=samples_seen)
loader = DataLoader(patches, 16, sampler=order, num_workers=4, multiprocessing_context="spawn")

With whole shards, each worker reads its own shards:

patches = PatchDataset("s3://bucket/patches", split="train", whole_shards=True)
batches = ShardBatches(patches, 16, seed=1, workers=4, start=batches_seen)
loader = DataLoader(patches, batch_sampler=batches, num_workers=4, multiprocessing_context="spawn")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from pngmodel.errors import IntegrityError, UserError
from pngmodel.seeds import derive_seed
from tasks.stores.patch_store import PatchStore

Item = dict[str, torch.Tensor]
_KEPT_SHARDS = 3


class PatchDataset(Dataset[Item]):
    """Patches of a store, or of one split or camera of it, as stored: (C, H, W) tensors uint8, uint16 or float32.

    An item has the keys ``clean`` and ``noisy`` (or the one that the store holds) and ``index``, the patch's row in
    the store's table. Workers receive indices only and open the store at the first read, so spawned
    workers and object storage work.
    """

    def __init__(
        self, url: str, split: str | None = None, camera: str | None = None, *, whole_shards: bool = False
    ) -> None:
        """``whole_shards``: read and cache whole shards, for remote stores that are read shard by shard.

        Raises:
            UserError: there is no finished patch store, or no patch of that split and camera.
        """
        self.url, self._kept_shards = url, _KEPT_SHARDS if whole_shards else 0
        store = self._opened()
        self._store: PatchStore | None = store
        self._digest = store.digest
        self.pairs = _picked(store, split, camera)
        self.shards: NDArray[np.int64] = np.array([store.layout.location(int(pair))[0] for pair in self.pairs])

    def _opened(self) -> PatchStore:
        return PatchStore.open(self.url, kept_shards=self._kept_shards)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_store": None}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> Item:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Item]:
        """Several items; object storage serves them in parallel."""
        store = self._store or self._opened()
        if store.digest != self._digest:
            raise IntegrityError(f"{self.url}: changed since it was opened; start the training again")
        self._store = store
        pairs = [int(self.pairs[position]) for position in positions]
        images = store.read_many(pairs, store.layout.arrays)
        columns = {name: [torch.from_numpy(image) for image in found] for name, found in images.items()}
        return [
            {name: column[k] for name, column in columns.items()} | {"index": torch.tensor(pair)}
            for k, pair in enumerate(pairs)
        ]


def _picked(store: PatchStore, split: str | None, camera: str | None) -> NDArray[np.int64]:
    picked = np.ones(len(store), bool)
    for name, wanted in (("split", split), ("camera", camera)):
        if wanted is None:
            continue
        column = store.table.column(name).to_pylist()
        picked &= np.array([value == wanted for value in column])
        if not picked.any():
            there = sorted({str(value) for value in column})
            raise UserError(f"{store.url}: no patch of {name} {wanted!r} and the other filters; {name}s: {there}")
    return np.flatnonzero(picked)


class ShuffledOrder(Sampler[int]):
    """An endless shuffled order of a dataset: sample n is a function of (seed, n) only.

    Every epoch is a permutation. ``by_shard`` shuffles the shards, and the patches within each, for ``whole_shards``.
    Workers that share a shard both read it; :class:`ShardBatches` avoids that.
    """

    def __init__(
        self, data: PatchDataset, seed: int, *, start: int = 0, samples: int | None = None, by_shard: bool = False
    ) -> None:
        """``start``: number of the first sample. ``samples``: how many to yield, default one epoch."""
        self._shards, self._seed, self._by_shard = data.shards, seed, by_shard
        self.start, self.samples = start, len(data) if samples is None else samples
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        return (self.at(number) for number in range(self.start, self.start + self.samples))

    def at(self, number: int) -> int:
        """The position in the dataset of sample ``number``."""
        epoch, location = divmod(number, len(self._shards))
        if epoch != self._epoch:
            self._order, self._epoch = self._permutation(epoch), epoch
        return int(self._order[location])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        # Raw bits: NumPy guarantees the streams of its bit generators, not its shuffling algorithms.
        bits = np.random.PCG64(derive_seed("patch order", self._seed, epoch))
        keys = bits.random_raw(len(self._shards))
        if not self._by_shard:
            return np.argsort(keys, kind="stable")
        return np.lexsort((keys, bits.random_raw(int(self._shards.max()) + 1)[self._shards]))


class ShardBatches(Sampler[list[int]]):
    """An endless shuffled order in batches, arranged so that each worker reads its own shards.

    Batch number n is a function of (seed, n) for one batch size and number of workers. An epoch is every patch once,
    shard by shard, cut into batches (the last may be smaller); each worker gets a contiguous run of them, interleaved
    as a ``DataLoader`` distributes batches. Two workers share a shard only where their runs meet.
    """

    def __init__(
        self,
        data: PatchDataset,
        size: int,
        *,
        seed: int,
        workers: int,
        start: int = 0,
        batches: int | None = None,
    ) -> None:
        """``workers``: the loader's ``num_workers``. ``start``: number of the first batch. ``batches``: how many to
        yield, default one epoch.

        Raises:
            UserError: size, workers or start are out of range.
        """
        for name, value, least in (("size", size, 1), ("workers", workers, 0), ("start", start, 0)):
            if value < least:
                raise UserError(f"{data.url}: ShardBatches got {name}={value}; give {least} or more")
        self._order, self._patches = ShuffledOrder(data, seed, by_shard=True), len(data)
        self._size, self._workers = size, max(1, workers)
        self._epoch = -(-self._patches // size)
        self.start, self.batches = start, self._epoch if batches is None else batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        return (self.at(number) for number in range(self.start, self.start + self.batches))

    def at(self, number: int) -> list[int]:
        """The positions in the dataset of batch ``number``."""
        epoch, turn = divmod(number, self._epoch)
        step, worker = divmod(turn, self._workers)
        least, longer = divmod(self._epoch, self._workers)  # that many workers have a run one batch longer
        first = (worker * least + min(worker, longer) + step) * self._size
        samples = range(first, min(first + self._size, self._patches))
        return [self._order.at(epoch * self._patches + sample) for sample in samples]
