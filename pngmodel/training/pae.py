"""Stage 1: training of the prompt autoencoder to reconstruct noise.

Source: PNG, CVPR 2026, arXiv 2603.04870, section on the prompt autoencoder. The latent penalty follows the authors'
released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.model import NoiseModel, Precision, latent_statistics
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.samples import NoiseBatch, Samples
from pngmodel.training.settings import StageSettings

_LATENT_WEIGHT = 1e-6


class AutoencoderObjective(nn.Module):
    """Loss: L1 of the reconstruction plus 1e-6 times the mean square of the latent."""

    name = "pae"

    def __init__(self, model: NoiseModel, settings: StageSettings, precision: Precision) -> None:
        super().__init__()
        self.autoencoder = model.autoencoder.requires_grad_(True)
        self._precision = precision

    def forward(
        self, noise: Tensor, clean: Tensor, reference: Tensor, numbers: Tensor, step: int
    ) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch, and ``std_ratio``, which is below 1 early in training with an L1 loss."""
        with self._precision.autocast():
            decoded, latent = self.autoencoder(noise, clean)
        decoded = decoded.float()
        loss = F.l1_loss(decoded, noise) + _LATENT_WEIGHT * latent.float().square().mean()
        return loss, {"std_ratio": decoded.detach().std() / noise.std()}

    @torch.no_grad()
    def pictures(self, batch: NoiseBatch) -> Pictures:
        """Return noise and its reconstruction."""
        with self._precision.autocast():
            decoded = self.autoencoder(batch.noise, batch.clean)[0].float()
        return Pictures({"real": batch.noise, "reconstructed": decoded}, noise_comparison(batch.noise, decoded))

    def compile(self) -> None:
        """Compile encoder and decoder in place."""
        self.autoencoder.compile()


@torch.no_grad()
def measure_latent(
    model: NoiseModel, samples: Samples[NoiseBatch], settings: StageSettings, precision: Precision, batches: int = 16
) -> None:
    """Set mean and standard deviation of the latent in ``model`` from the first ``batches`` training batches."""
    latents = []
    for k in range(batches):
        batch = samples.__getitems__(range(k * settings.batch, (k + 1) * settings.batch))
        latents.append(model.autoencoder.encoder.latent(batch.noise.to(precision.device)).float().cpu())
    mean, std = latent_statistics(torch.cat(latents))
    model.latent_mean.copy_(mean)
    model.latent_std.copy_(std)
