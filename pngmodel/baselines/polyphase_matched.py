"""The learned model without its network: the reference's distribution and polyphase spectrum put on white noise.

Everything that needs no training in :class:`~pngmodel.generator.NoiseGenerator` as tiny and small configure it.
What the network adds is the difference to this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.baselines.base import Baseline
from pngmodel.errors import UserError
from pngmodel.images import pad_to_multiple
from pngmodel.interface import Prompts
from pngmodel.network.presets import DOWNSAMPLING, PRESETS
from pngmodel.seeds import derive_seed, generator
from pngmodel.statistics.units import CALIBRATION, NoiseUnits

_DRAWS, _SIDE = 3, 256


class PolyphaseMatched(Baseline):
    """Quantiles against intensity, and covariances of colours and places of a 2 x 2 pattern up to 15 pixels."""

    name = "polyphase_matched"

    def __init__(self) -> None:
        self._units = NoiseUnits(PRESETS["tiny"])
        self.prompt_names = self._units.names.union(CALIBRATION)

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Of one pair (C, H, W) in [0, 1]: the curves, the covariances, and those of white noise coloured by them.

        Raises:
            UserError: less than 8 x 8 pixels, which have no covariances of a 2 x 2 pattern.
        """
        if min(noisy.shape[-2:]) < DOWNSAMPLING:
            raise UserError(
                f"reference of {tuple(noisy.shape[-2:])} pixels is too small for {self.name}; give at least "
                f"{DOWNSAMPLING} x {DOWNSAMPLING}"
            )
        noisy, clean = noisy.cpu().float(), clean.cpu().float()
        u, fitted = self._units.fit(noisy, clean)
        shape = (u.shape[0], min(u.shape[1], _SIDE), min(u.shape[2], _SIDE))
        samples = [self._coloured(shape, fitted, derive_seed("calibration", k)) for k in range(_DRAWS)]
        noise, shown = (noisy - clean)[:, : shape[1], : shape[2]], clean[:, : shape[1], : shape[2]]
        return fitted | self._units.calibration(samples, noise, shown, fitted)

    def _coloured(self, shape: tuple[int, int, int], prompts: Prompts, seed: int) -> Tensor:
        white = torch.randn(shape, generator=generator(seed))
        return self._units.coloured(white, prompts)

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Coloured noise (C, H, W), carried over to the reference's covariances, with the curves put on."""
        channels, height, width = clean.shape
        padded = pad_to_multiple(clean[None], DOWNSAMPLING)
        u = self._coloured((channels, padded.shape[-2], padded.shape[-1]), prompts, seed)
        u = self._units.calibrated(u, prompts)[:, :height, :width]
        return self._units.unwhitened(u, clean, prompts)
