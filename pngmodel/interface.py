"""Interface of all noise generators: the learned model and the baselines."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import SupportsIndex, TypeAlias, cast

import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.images import Image, from_unit, to_unit
from pngmodel.seeds import derive_seed

Prompts: TypeAlias = Mapping[str, Tensor]
"""Representation of a reference that a generator extracts: named float32 tensors without a batch axis."""

Reference: TypeAlias = "tuple[Image, Image]"


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    if isinstance(seed, SupportsIndex) and not hasattr(seed, "__len__"):  # NumPy integers too, but not arrays
        return [derive_seed(operator.index(seed), k) for k in range(count)]
    try:
        return [operator.index(s) for s in cast("Sequence[int]", seed)]
    except TypeError:
        raise UserError(f"generate: seed is {seed!r:.60}; expected an int, or one int per image") from None


class NoisyImageGenerator(ABC):
    """Generates noisy images from clean ones, with noise like that of a reference.

    Subclasses implement :meth:`extract` and :meth:`sample` on float32 tensors in [0, 1]; this class converts any
    supported image. A sample depends only on its clean image, prompts and seed, not on its batch.
    """

    name: str
    simplifications: tuple[str, ...] = ()
    """Differences of a re-implementation from its paper; shown below tables of results."""

    @abstractmethod
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the prompts of a reference pair, both images (C, H, W) in [0, 1]."""

    @abstractmethod
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W), clamped to [0, 1] and not rounded, on any device.

        Args:
            clean: Clean images (B, C, H, W) in [0, 1].
            prompts: Prompts of each image.
            seeds: Seed of each image.
        """

    def prompts(self, noisy: Image, clean: Image) -> list[Prompts]:
        """Return the prompts of a reference pair, or of a batch of pairs.

        Args:
            noisy: Noisy image, see :func:`~pngmodel.images.to_unit`.
            clean: Clean image of the same shape, aligned with it.

        Raises:
            UserError: An image is not supported, or the shapes differ.
        """
        noisy_x, _ = to_unit(noisy, "reference noisy")
        clean_x, _ = to_unit(clean, "reference clean")
        if noisy_x.shape != clean_x.shape:
            raise UserError(
                f"reference: the noisy image has shape {tuple(noisy.shape)}, but the clean image {tuple(clean.shape)}; "
                "use an aligned pair of the same size"
            )
        return [self.extract(n, c) for n, c in zip(noisy_x, clean_x, strict=True)]

    @torch.no_grad()
    def generate(
        self,
        clean: Image,
        reference: Reference | Image | None = None,
        *,
        prompts: Prompts | Sequence[Prompts] | None = None,
        seed: int | Sequence[int] = 0,
    ) -> Image:
        """Return a noisy version of ``clean``, in the same dtype, layout, library and device.

        Args:
            clean: NumPy array or torch tensor, (H, W), (H, W, C), (C, H, W) or a batch; uint8, uint16 or float in
                [0, 1].
            reference: Aligned pair ``(noisy, clean)`` of any size, or a batch with one pair per clean image; or only
                the noise, i.e. noisy minus clean as a float array in [-1, 1], which is then assumed to be independent
                of the intensity.
            prompts: Result of :meth:`prompts` instead of a reference: one entry, or one per image.
            seed: One int for the call, from which image k of a batch uses ``derive_seed(seed, k)`` (k = 0 for a single
                image), or one int per image.

        Raises:
            UserError: An image or seed is invalid, prompts are not finite, or not exactly one of ``reference`` and
                ``prompts`` is given.
        """
        x, fmt = to_unit(clean, "clean")
        count = x.shape[0]
        if (reference is None) == (prompts is None):
            raise UserError("generate: pass exactly one of reference=(noisy, clean) and prompts=")
        if reference is not None:
            prompts = self._reference_prompts(reference)
        entries: Sequence[Prompts] = [prompts] if isinstance(prompts, Mapping) else list(prompts or ())
        for name in {name for entry in entries for name, value in entry.items() if not torch.isfinite(value).all()}:
            raise UserError(f"prompts: {name} has NaN or infinite values; use the result of prompts()")
        if len(entries) == 1:
            entries = list(entries) * count
        seeds = _seeds(seed, count)
        for what, values in (("prompts", entries), ("seeds", seeds)):
            if len(values) != count:
                raise UserError(f"generate: {count} clean images but {len(values)} {what}; pass one, or one per image")
        return from_unit(self.sample(x, entries, seeds), fmt)

    def _reference_prompts(self, reference: Reference | Image) -> list[Prompts]:
        if isinstance(reference, (tuple, list)):
            if len(reference) != 2:
                raise UserError(
                    f"generate: reference has {len(reference)} items; expected a pair (noisy, clean) or a noise array"
                )
            return self.prompts(*reference)
        name = "reference noise (noisy - clean)"
        if "float" not in str(getattr(reference, "dtype", "")):
            raise UserError(f"{name}: the dtype is not float; use a float array in [-1, 1], or a pair (noisy, clean)")
        # Noise without a clean image is added to a mid-grey image, which makes all intensity curves constant.
        # Convert in float32, because float16 would round the noise to a quarter of a digital number.
        wide = reference.float() if isinstance(reference, Tensor) else reference.astype("float32")
        half, _ = to_unit((wide + 1) / 2, name)
        noise = half * 2 - 1
        # An integer digital number, so that noise of 8-bit images stays on integers.
        grey = torch.full_like(noise, 128 / 255)
        return [self.extract(g + n, g) for n, g in zip(noise, grey, strict=True)]
