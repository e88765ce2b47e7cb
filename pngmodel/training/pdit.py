"""Stage 2: the prompt DiT learns the latent by consistency training (method.md 3, 4)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pngmodel.consistency import consistency_loss
from pngmodel.model import NoiseModel, Precision
from pngmodel.seeds import generator
from pngmodel.training.samples import Batch, WhitenedPairs
from pngmodel.training.settings import PDiTSettings


class TransformerObjective:
    """Consistency loss of the P-DiT; optionally the prompt blocks learn too."""

    name = "pdit"

    def __init__(self, model: NoiseModel, pairs: WhitenedPairs, settings: PDiTSettings, precision: Precision) -> None:
        self._model, self._pairs, self._settings, self._precision = model, pairs, settings, precision
        model.autoencoder.requires_grad_(False)
        # Latents come from the encoder as stage 1 left it, since that is the one the decoder knows.
        self._latents = copy.deepcopy(model.autoencoder.encoder)
        if settings.train_prompts:
            # The trunk and the prompt blocks learn on, but the head does not: it is for the latent only.
            encoder = model.autoencoder.encoder
            encoder.requires_grad_(True)
            encoder.head.requires_grad_(False)
            if model.config.latent_init != "lossless":
                raise ValueError("train_prompts needs latent_init lossless: a learned latent reads the trained trunk")
        self.module: nn.Module = model

    def batch(self, step: int) -> Batch:
        s = self._settings
        reference = s.reference_crop if s.reference == "same_image" else None
        return self._pairs.batch(step, batch=s.batch, crop=s.crop, reference_crop=reference, seed=s.seed)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        settings, model, device = self._settings, self._model, self._precision.device
        noise, clean, reference = (x.to(device) for x in (batch.noise, batch.clean, batch.reference))
        g = generator("consistency", settings.seed, step)
        # In training only, so that the model does not lean on the clean image's last bit (method.md 3).
        clean = clean + 2 * settings.condition_noise * torch.randn(clean.shape, generator=g).to(device)
        encoder = model.autoencoder.encoder
        with self._precision.autocast():
            with torch.no_grad():
                latent = model.normalise(self._latents.latent(noise))
            with torch.set_grad_enabled(settings.train_prompts):
                code = encoder.prompts(reference)
        return consistency_loss(
            model.network(code, clean, self._precision),
            latent,
            step=step,
            total_steps=settings.steps,
            schedule=model.schedule,
            generator=g,
            kind=settings.loss,
        ), {}
