"""Sources of pairs of noisy and clean images: real patches, or clean patches with noise generated on the fly."""

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
"""Noisy and clean image, (C, H, W) in [0, 1]."""
_CACHED_PROMPTS = 256
_EVEN = 2  # crops start at even pixels, so that the Bayer pattern keeps its phase


class PairSource(Protocol):
    """Indexed pairs for a ``DataLoader``; instances are small when pickled for its workers."""

    side: int
    """Side of the largest square crop that fits into every pair, pixels."""
    licence: str

    @property
    def digest(self) -> str:
        """Digest of the content of all pairs."""
        ...

    def __len__(self) -> int: ...

    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """Return a square crop of a pair.

        Args:
            index: Index of the pair.
            side: Side of the crop, pixels.
            g: Random generator of the position.
            seed: Seed of generated noise.
        """
        ...

    def name(self, index: int) -> str:
        """Return the name of a pair for messages."""
        ...


def pairs_digest(store: str, split: str | None) -> str:
    """Return the digest of the pairs of a split of the patch store with digest ``store``."""
    return content_key([store, split])


class RealPairs:
    """Pairs of one split of a patch store."""

    def __init__(self, url: str, split: str | None) -> None:
        """
        Args:
            url: Patch store.
            split: Split of the store; None for all.

        Raises:
            UserError: There is no such store, or it has no pair of that split.
        """
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
        return random_crop(
            to_float(item[NOISY], self._scales[index]), to_float(item[CLEAN], self._scales[index]), side, g
        )

    def name(self, index: int) -> str:
        """Return the name of the pair of a patch."""
        return str(self._pairs[index])

    def setting(self, index: int) -> str | None:
        """Return the camera setting of a pair, see :func:`setting_name`."""
        return self._settings[index]


def setting_name(camera: str | None, iso: int | None) -> str | None:
    """Format camera and ISO as one name, e.g. ``GP_00800``; None if either is unknown."""
    return None if camera is None or iso is None else f"{camera}_{iso:05}"


class GeneratedPairs:
    """Clean patches of a store with generated noise; the noise reference of each patch is its own pair.

    Noise is generated on access and depends on the seed. Images are rounded to 8 bits, as stored images are.
    """

    def __init__(self, url: str, split: str | None, model: str, *, device: str = "cpu") -> None:
        """
        Args:
            url: Patch store.
            split: Split of the store; None for all.
            model: Noise generator.
            device: Device of the generator.

        Raises:
            UserError: The store or the generator cannot be used.
        """
        self._real, self._generator = RealPairs(url, split), (model, device, model_digest(model))
        load_generator(*self._generator)  # raise errors here instead of in a worker
        self.side, self.licence, self.url = self._real.side, self._real.licence, url
        self.digest = content_key([self._real.digest, self._generator[2]])
        self._prompts: OrderedDict[int, Prompts] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_prompts": OrderedDict()}

    def __len__(self) -> int:
        return len(self._real)

    @one_thread()
    def crop(self, index: int, side: int, g: torch.Generator, seed: int) -> Pair:
        """See :class:`PairSource`. Noise is generated for the crop only."""
        _, clean = self._real.crop(index, side, g, seed)
        generator = load_generator(*self._generator)
        noisy = generator.sample(clean[None], [self._prompts_of(index)], [derive_seed("on the fly", seed)])[0].cpu()
        return (noisy * 255).round() / 255, clean

    def name(self, index: int) -> str:
        """Return the name of the pair of a patch."""
        return self._real.name(index)

    def _prompts_of(self, index: int) -> Prompts:
        """Prompts of the patch's own noise; the most recently used are cached."""
        found = self._prompts.get(index)
        if found is None:
            whole = self._real.crop(index, self.side, torch.Generator(), 0)
            found = self._prompts[index] = load_generator(*self._generator).extract(*whole)
        self._prompts.move_to_end(index)
        while len(self._prompts) > _CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        return found


def to_float(image: Tensor, data_range: float) -> Tensor:
    """Convert digital numbers to float32 in [0, 1]."""
    pixels: Pixels = image.numpy().astype(np.float32) / np.float32(data_range)
    return torch.from_numpy(pixels)


def random_crop(noisy: Tensor, clean: Tensor, side: int, g: torch.Generator) -> Pair:
    """Crop both images (C, H, W) to the same square at random even coordinates."""
    if side > min(clean.shape[-2:]):
        height, width = clean.shape[-2:]
        raise UserError(
            f"crop: {side} pixels is larger than a patch of {height} x {width}; use at most {min(height, width)}"
        )
    y, x = (_EVEN * int(torch.randint((n - side) // _EVEN + 1, (), generator=g)) for n in clean.shape[-2:])
    return noisy[:, y : y + side, x : x + side], clean[:, y : y + side, x : x + side]
