"""Base class of generators of trained baselines: batching, conversion to RGB, checks of prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from pngmodel.errors import UserError
from pngmodel.images import pad_to_multiple
from pngmodel.interface import NoisyImageGenerator, Prompts
from pngmodel.network.model import Precision

COLOURS = 3
_GREEN = 1  # the channel closest to luminance
_SMALLEST = 16  # pixels per side of a reference

Network = TypeVar("Network", bound=nn.Module)


class Imitator(NoisyImageGenerator, Generic[Network]):
    """A generator with a trained network, in float32 on ``device``.

    Subclasses implement :meth:`describe` and :meth:`noise`. Images are processed one by one, so samples do not depend
    on their batch; random numbers are drawn on the CPU.
    """

    prompt_names: ClassVar[frozenset[str]]
    multiple: int = 1
    """Images are padded to multiples of this number of pixels."""

    def __init__(self, network: Network, *, device: str = "cpu") -> None:
        self._device = Precision.best(device).device
        self.network = network.to(self._device).eval().requires_grad_(False)

    @abstractmethod
    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the prompts of a pair (1, 3, H, W) on the device, with a batch axis."""

    @abstractmethod
    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return noise (1, 3, H, W) for a clean image of that shape on the device; prompts have a batch axis."""

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the prompts of a reference pair (C, H, W) in [0, 1]; see :class:`NoisyImageGenerator`."""
        if min(noisy.shape[-2:]) < _SMALLEST:
            height, width = noisy.shape[-2:]
            raise UserError(
                f"reference: {height} x {width} pixels is too small; use at least {_SMALLEST} x {_SMALLEST}"
            )
        found = self.describe(*(_as_rgb(image.float()[None]).to(self._device) for image in (noisy, clean)))
        return {name: value[0].float().cpu() for name, value in found.items()}

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W) in [0, 1], not rounded; see :class:`NoisyImageGenerator`."""
        for entry in prompts:
            if missing := self.prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} are missing; use the result of prompts() of {self.name!r}")
        return torch.stack([self._one(c, p, s) for c, p, s in zip(clean, prompts, seeds, strict=True)])

    def _one(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        channels, height, width = clean.shape
        padded = pad_to_multiple(_as_rgb(clean.float()[None]), self.multiple).to(self._device)
        batched = {name: value[None].to(self._device) for name, value in prompts.items()}
        noise = self.noise(padded, batched, seed)[0, :, :height, :width].cpu()
        if channels == 1:
            noise = noise[_GREEN : _GREEN + 1]
        return (clean.cpu().float() + noise).clamp(0, 1)


def _as_rgb(image: Tensor) -> Tensor:
    return image.expand(-1, COLOURS, -1, -1) if image.shape[1] == 1 else image
