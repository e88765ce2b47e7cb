"""Stage 1: the prompt autoencoder learns to give noise back (method.md 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel.model import NoiseModel, Precision, latent_statistics
from pngmodel.training.samples import Batch, WhitenedPairs
from pngmodel.training.settings import StageSettings

_LATENT_WEIGHT = 1e-6


class AutoencoderObjective:
    """L1 of the reconstruction + 1e-6 x mean square of the latent."""

    name = "pae"

    def __init__(self, model: NoiseModel, pairs: WhitenedPairs, settings: StageSettings, precision: Precision) -> None:
        self.module = model.autoencoder
        self._pairs, self._settings, self._precision = pairs, settings, precision

    def batch(self, step: int) -> Batch:
        s = self._settings
        return self._pairs.batch(step, batch=s.batch, crop=s.crop, reference_crop=None, seed=s.seed)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        device = self._precision.device
        noise, clean = batch.noise.to(device), batch.clean.to(device)
        with self._precision.autocast():
            decoded, latent = self.module(noise, clean)
        decoded = decoded.float()
        loss = F.l1_loss(decoded, noise) + _LATENT_WEIGHT * latent.float().square().mean()
        # Under-dispersion of a short L1 training shows here (method.md 2).
        return loss, {"std_ratio": float(decoded.detach().std() / noise.std())}


@torch.no_grad()
def measure_latent(
    model: NoiseModel, pairs: WhitenedPairs, settings: StageSettings, precision: Precision, batches: int = 16
) -> None:
    """Set the model's latent statistics from ``batches`` training batches."""
    latents = []
    for k in range(batches):
        batch = pairs.batch(k, batch=settings.batch, crop=settings.crop, reference_crop=None, seed=settings.seed)
        latents.append(model.autoencoder.encoder.latent(batch.noise.to(precision.device)).float().cpu())
    mean, std = latent_statistics(torch.cat(latents))
    model.latent_mean.copy_(mean)
    model.latent_std.copy_(std)
