"""Where pairs of noisy and clean images come from: real patches, a corpus, or a generator that draws them then."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.interface import Prompts
from pngmodel.seeds import derive_seed
from tasks.models.generators import load_generator, model_digest, one_thread
from tasks.runtime.provenance import content_key
from tasks.stores.layout import CLEAN, NOISY
from tasks.stores.patch_store import PatchStore
from tasks.stores.shard_file import Pixels
from tasks.stores.torch_dataset import PatchDataset

Pair = tuple[Tensor, Tensor]
"""Noisy and clean (C, H, W) in [0, 1]."""
_KEPT_PROMPTS = 256
_EVEN = 2  # windows start at even pixels, so that a sensor's 2 x 2 colour pattern keeps its position


class PairSource(Protocol):
    """Pairs by number, for a ``DataLoader``: what travels to its workers is small."""

    side: int
    """Side of the largest square window that every pair has, pixels."""
    licence: str

    @property
    def digest(self) -> str:
        """What is another when a pair is."""
        ...

    def __len__(self) -> int: ...

    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """A window of pair ``index`` at a place drawn from ``g``; ``seed`` is that of noise that is made for it."""
        ...

    def name(self, index: int) -> str:
        """Which pair it is, for people."""
        ...


def pairs_digest(store: str, split: str | None) -> str:
    """What identifies the pairs of one split of a patch store, which has this digest."""
    return content_key([store, split])


class RealPairs:
    """The pairs of one split of a patch store."""

    def __init__(self, url: str, split: str | None) -> None:
        """Raises UserError when there is no such store, or no pair of that split in it."""
        store = PatchStore.open(url)
        store.require(CLEAN, NOISY)
        self.url, self._data = url, PatchDataset(url, split)
        self.side, self.licence = min(store.layout.height, store.layout.width), store.licence
        self.digest = pairs_digest(store.digest, split)
        picked = store.table.select(["pair", "data_range", "camera", "iso"]).take(self._data.pairs).to_pydict()
        self._pairs, self._scales = picked["pair"], picked["data_range"]
        self._settings = [setting_name(*both) for both in zip(picked["camera"], picked["iso"], strict=True)]

    def __len__(self) -> int:
        return len(self._data)

    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """See :class:`PairSource`."""
        item = self._data[index]
        return same_window(
            to_float(item[NOISY], self._scales[index]), to_float(item[CLEAN], self._scales[index]), side, g
        )

    def name(self, index: int) -> str:
        """The pair that the patch was cut from."""
        return str(self._pairs[index])

    def setting(self, index: int) -> str | None:
        """Camera and ISO of the pair, see :func:`setting_name`."""
        return self._settings[index]


def setting_name(camera: str | None, iso: int | None) -> str | None:
    """One name for both, e.g. ``GP_00800``; None when either is not known."""
    return None if camera is None or iso is None else f"{camera}_{iso:05}"


class GeneratedPairs:
    """Clean patches of a store, made noisy when they are asked for: noise like that of the patch's own pair.

    Nothing is stored, and a sample that is asked for with another seed has other noise. Levels are rounded to 8 bits,
    as stored images are.
    """

    def __init__(self, url: str, split: str | None, model: str, *, device: str = "cpu") -> None:
        """Raises UserError when the store or the generator cannot be used."""
        self._real, self._generator = RealPairs(url, split), (model, device, model_digest(model))
        load_generator(*self._generator)  # what is wrong with it is said here and not by a worker
        self.side, self.licence, self.url = self._real.side, self._real.licence, url
        self.digest = content_key([self._real.digest, self._generator[2]])
        self._prompts: OrderedDict[int, Prompts] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_prompts": OrderedDict()}

    def __len__(self) -> int:
        return len(self._real)

    @one_thread()
    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """See :class:`PairSource`; only the window is made noisy."""
        _, clean = self._real.crop(index, side, g, seed)
        generator = load_generator(*self._generator)
        drawn = generator.sample(clean[None], [self._of(index)], [derive_seed("on the fly", seed)])[0].cpu()
        return (drawn * 255).round() / 255, clean

    def name(self, index: int) -> str:
        """The pair whose clean side is made noisy."""
        return self._real.name(index)

    def _of(self, index: int) -> Prompts:
        """Prompts of the patch's own noise; the last few hundred are kept."""
        found = self._prompts.get(index)
        if found is None:
            whole = self._real.crop(index, self.side, torch.Generator(), 0)
            found = self._prompts[index] = load_generator(*self._generator).extract(*whole)
        self._prompts.move_to_end(index)
        while len(self._prompts) > _KEPT_PROMPTS:
            self._prompts.popitem(last=False)
        return found


def to_float(image: Tensor, data_range: float) -> Tensor:
    """Convert digital numbers to [0, 1]."""
    pixels: Pixels = image.numpy().astype(np.float32) / np.float32(data_range)
    return torch.from_numpy(pixels)


def same_window(noisy: Tensor, clean: Tensor, side: int, g: torch.Generator) -> Pair:
    """The same square at a random even place of both."""
    if side > min(clean.shape[-2:]):
        raise UserError(f"crop: {side} pixels is larger than a patch of {tuple(clean.shape[-2:])}; choose fewer")
    y, x = (_EVEN * int(torch.randint((n - side) // _EVEN + 1, (), generator=g)) for n in clean.shape[-2:])
    return noisy[:, y : y + side, x : x + side], clean[:, y : y + side, x : x + side]
