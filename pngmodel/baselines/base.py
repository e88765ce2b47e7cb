"""What the baselines share: one image at a time, prompts checked by name, grey and colour matched."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator, Prompts

_GREEN = 1


class Baseline(NoisyImageGenerator):
    """A noise generator fitted to one reference in closed form, without training.

    Subclasses give :meth:`extract` and :meth:`noise`. Each image is made alone, so a sample cannot depend
    on its batch. Computed on the CPU in float32.
    """

    prompt_names: frozenset[str]

    @abstractmethod
    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise (C, H, W) in [-1, 1] for a clean image (C, H, W) with as many channels as the prompts."""

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Noisy images (B, C, H, W) in [0, 1], not rounded; see :class:`NoisyImageGenerator`."""
        for entry in prompts:
            if missing := self.prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} missing; use what prompts() of {self.name!r} returned")
        return torch.stack([self._one(c.cpu().float(), p, s) for c, p, s in zip(clean, prompts, seeds, strict=True)])

    def _one(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        # An entry may count places of a pixel pattern beside the colours, never fewer than these.
        channels = min(value.shape[0] for value in prompts.values())
        if channels == clean.shape[0]:
            noise = self.noise(clean, prompts, seed)
        elif clean.shape[0] == 1:
            # Green is the channel closest to luminance.
            noise = self.noise(clean.expand(channels, -1, -1), prompts, seed)[_GREEN : _GREEN + 1]
        else:
            # A grey reference: each channel takes its one curve, and its grain is grey too.
            noise = torch.cat([self.noise(channel[None], prompts, seed) for channel in clean])
        return (clean + noise).clamp(0, 1)
