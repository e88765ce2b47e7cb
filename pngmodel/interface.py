"""The face that every noise generator shares: the learned model and all baselines."""

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
"""What a generator keeps of one reference: named float32 tensors without a batch axis."""

Reference: TypeAlias = "tuple[Image, Image]"


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    if isinstance(seed, SupportsIndex) and not hasattr(seed, "__len__"):  # NumPy integers too, but not arrays
        return [derive_seed(operator.index(seed), k) for k in range(count)]
    try:
        return [operator.index(s) for s in cast("Sequence[int]", seed)]
    except TypeError:
        raise UserError(f"generate: seed is {seed!r:.60}; give a whole number, or one per image") from None


class NoisyImageGenerator(ABC):
    """Makes noisy images from clean ones, imitating the noise of a reference.

    Subclasses implement :meth:`extract` and :meth:`sample` on float32 tensors in [0, 1];
    this class turns any supported image into those and back. A sample depends on its clean image,
    its prompts and its seed only: not on the batch it came in.
    """

    name: str
    simplifications: tuple[str, ...] = ()
    """How a re-implementation differs from its paper, a sentence each: they stand below every table it is in."""

    @abstractmethod
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Summarise the noise of one reference pair, both (C, H, W) in [0, 1]."""

    @abstractmethod
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W), clamped to [0, 1] and NOT rounded to levels, on any device.

        ``clean`` is (B, C, H, W) in [0, 1]; ``prompts`` and ``seeds`` have one entry per image.
        """

    def prompts(self, noisy: Image, clean: Image) -> list[Prompts]:
        """Extract the prompts of a reference image pair or batch (see :func:`~pngmodel.images.to_unit`)."""
        noisy_x, _ = to_unit(noisy, "reference noisy")
        clean_x, _ = to_unit(clean, "reference clean")
        if noisy_x.shape != clean_x.shape:
            raise UserError(
                f"reference: noisy has shape {tuple(noisy.shape)} but clean has {tuple(clean.shape)}; "
                "a reference is an aligned pair of one size"
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
            clean: numpy or torch, (H, W), (H, W, C), (C, H, W) or a batch; uint8, uint16 or float in [0, 1].
            reference: an aligned pair ``(noisy, clean)`` of any size (or a batch of as many pairs as
                ``clean`` has images), or the noise alone: noisy minus clean as a float array in [-1, 1]
                (its dependence on intensity is then unknown and taken as constant).
            prompts: instead of a reference, what :meth:`prompts` returned: one entry, or one per image.
            seed: one number for the call (image k of a batch uses ``derive_seed(seed, k)``, a single
                image uses it as k = 0), or one per image, used as they are.

        Raises:
            UserError: an unusable image or seed, prompts that are not finite, or not exactly one of ``reference`` and
                ``prompts``.
        """
        x, fmt = to_unit(clean, "clean")
        count = x.shape[0]
        if (reference is None) == (prompts is None):
            raise UserError("generate: give exactly one of reference=(noisy, clean) and prompts=")
        if reference is not None:
            prompts = self._reference_prompts(reference)
        entries: Sequence[Prompts] = [prompts] if isinstance(prompts, Mapping) else list(prompts or ())
        for name in {name for entry in entries for name, value in entry.items() if not torch.isfinite(value).all()}:
            raise UserError(f"prompts: {name} holds NaN or infinite values; use what prompts() returned")
        if len(entries) == 1:
            entries = list(entries) * count
        seeds = _seeds(seed, count)
        for what, given in (("prompts", entries), ("seeds", seeds)):
            if len(given) != count:
                raise UserError(f"generate: {count} clean images but {len(given)} {what}")
        return from_unit(self.sample(x, entries, seeds), fmt)

    def _reference_prompts(self, reference: Reference | Image) -> list[Prompts]:
        if isinstance(reference, (tuple, list)):
            if len(reference) != 2:
                raise UserError(f"generate: reference is a pair (noisy, clean), found {len(reference)} items")
            return self.prompts(*reference)
        name = "reference noise (noisy - clean)"
        if "float" not in str(getattr(reference, "dtype", "")):
            raise UserError(f"{name}: give a float array in [-1, 1], or a pair (noisy, clean)")
        # Noise alone: shown to the extractor on a mid-grey image, which makes every intensity curve constant.
        # Halved in float32: a float16 image would round the noise to quarter levels.
        wide = reference.float() if isinstance(reference, Tensor) else reference.astype("float32")
        half, _ = to_unit((wide + 1) / 2, name)
        noise = half * 2 - 1
        # A whole 8-bit level, so that the noise of 8-bit images stays on levels.
        grey = torch.full_like(noise, 128 / 255)
        return [self.extract(g + n, g) for n, g in zip(noise, grey, strict=True)]
