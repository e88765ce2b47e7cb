"""Stage 1: the prompt autoencoder learns to give noise back (method.md 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.model import NoiseModel, Precision, latent_statistics
from pngmodel.training.objective import Figures, Pictures, strength
from pngmodel.training.samples import NoiseBatch, Samples
from pngmodel.training.settings import StageSettings

_LATENT_WEIGHT = 1e-6


class AutoencoderObjective(nn.Module):
    """L1 of the reconstruction + 1e-6 x mean square of the latent."""

    name = "pae"

    def __init__(self, model: NoiseModel, settings: StageSettings, precision: Precision) -> None:
        super().__init__()
        self.autoencoder = model.autoencoder.requires_grad_(True)
        self._precision = precision

    def forward(
        self, noise: Tensor, clean: Tensor, reference: Tensor, numbers: Tensor, step: int
    ) -> tuple[Tensor, Figures]:
        """Loss of a batch; ``std_ratio`` shows the under-dispersion of a short L1 training (method.md 2)."""
        with self._precision.autocast():
            decoded, latent = self.autoencoder(noise, clean)
        decoded = decoded.float()
        loss = F.l1_loss(decoded, noise) + _LATENT_WEIGHT * latent.float().square().mean()
        return loss, {"std_ratio": decoded.detach().std() / noise.std()}

    @torch.no_grad()
    def pictures(self, batch: NoiseBatch) -> Pictures:
        """Noise and what the autoencoder makes of it."""
        with self._precision.autocast():
            decoded = self.autoencoder(batch.noise, batch.clean)[0].float()
        return Pictures({"real": batch.noise, "reconstructed": decoded}, strength(batch.noise, decoded))

    def compile(self) -> None:
        """Compile encoder and decoder in place."""
        self.autoencoder.compile()


@torch.no_grad()
def measure_latent(
    model: NoiseModel, samples: Samples[NoiseBatch], settings: StageSettings, precision: Precision, batches: int = 16
) -> None:
    """Set the model's latent statistics from the first ``batches`` training batches."""
    latents = []
    for k in range(batches):
        batch = samples.__getitems__(range(k * settings.batch, (k + 1) * settings.batch))
        latents.append(model.autoencoder.encoder.latent(batch.noise.to(precision.device)).float().cpu())
    mean, std = latent_statistics(torch.cat(latents))
    model.latent_mean.copy_(mean)
    model.latent_std.copy_(std)
