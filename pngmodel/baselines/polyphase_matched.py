"""The learned model without its network: white noise with the distribution and polyphase spectrum of the reference.

It has all parts of :class:`~pngmodel.generator.NoiseGenerator` (presets tiny and small) that need no training, so that
the difference between both is the contribution of the network.
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

_SAMPLES, _SIDE = 3, 256


class PolyphaseMatched(Baseline):
    """Matches quantiles given the intensity, and covariances of channels and 2 x 2 phases up to 15 pixels."""

    name = "polyphase_matched"

    def __init__(self) -> None:
        self._units = NoiseUnits(PRESETS["tiny"])
        self.prompt_names = self._units.names.union(CALIBRATION)

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return curves and covariances of a pair (C, H, W) in [0, 1], and covariances of samples for calibration.

        Raises:
            UserError: The reference is smaller than 8 x 8 pixels.
        """
        if min(noisy.shape[-2:]) < DOWNSAMPLING:
            height, width = noisy.shape[-2:]
            raise UserError(
                f"reference: {height} x {width} pixels is too small for {self.name}; use at least "
                f"{DOWNSAMPLING} x {DOWNSAMPLING}"
            )
        noisy, clean = noisy.cpu().float(), clean.cpu().float()
        u, fitted = self._units.fit(noisy, clean)
        shape = (u.shape[0], min(u.shape[1], _SIDE), min(u.shape[2], _SIDE))
        samples = [self._coloured(shape, fitted, derive_seed("calibration", k)) for k in range(_SAMPLES)]
        noise, cropped = (noisy - clean)[:, : shape[1], : shape[2]], clean[:, : shape[1], : shape[2]]
        return fitted | self._units.calibration(samples, noise, cropped, fitted)

    def _coloured(self, shape: tuple[int, int, int], prompts: Prompts, seed: int) -> Tensor:
        white = torch.randn(shape, generator=generator(seed))
        return self._units.coloured(white, prompts)

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return coloured noise (C, H, W), calibrated to the covariances of the reference and scaled by the curves."""
        channels, height, width = clean.shape
        padded = pad_to_multiple(clean[None], DOWNSAMPLING)
        u = self._coloured((channels, padded.shape[-2], padded.shape[-1]), prompts, seed)
        u = self._units.calibrated(u, prompts)[:, :height, :width]
        return self._units.unwhitened(u, clean, prompts)
