"""Base class of baselines without training: batching, checks of prompts, grey and colour references."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator, Prompts

_GREEN = 1


class Baseline(NoisyImageGenerator):
    """A noise generator fitted to a reference in closed form.

    Subclasses implement :meth:`extract` and :meth:`noise`. Images are processed one by one on the CPU in float32, so
    samples do not depend on their batch.
    """

    prompt_names: frozenset[str]

    @abstractmethod
    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return noise (C, H, W) in [-1, 1] for a clean image (C, H, W) with the number of channels of the prompts."""

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W) in [0, 1], not rounded; see :class:`NoisyImageGenerator`."""
        for entry in prompts:
            if missing := self.prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} are missing; use the result of prompts() of {self.name!r}")
        return torch.stack([self._one(c.cpu().float(), p, s) for c, p, s in zip(clean, prompts, seeds, strict=True)])

    def _one(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        # Tensors may have one channel per phase of a pixel pattern, but never fewer than the number of colours.
        channels = min(value.shape[0] for value in prompts.values())
        if channels == clean.shape[0]:
            noise = self.noise(clean, prompts, seed)
        elif clean.shape[0] == 1:
            # Green is the channel closest to luminance.
            noise = self.noise(clean.expand(channels, -1, -1), prompts, seed)[_GREEN : _GREEN + 1]
        else:
            # A grey reference: use its curve for every channel, with the same noise.
            noise = torch.cat([self.noise(channel[None], prompts, seed) for channel in clean])
        return (clean + noise).clamp(0, 1)
