"""Stage 2: the prompt DiT learns the latent by consistency training (method.md 3, 4)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pngmodel.network.consistency import consistency_loss, one_step
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.training.objective import Figures, Pictures, strength
from pngmodel.training.random import normal, uniform
from pngmodel.training.samples import NoiseBatch
from pngmodel.training.settings import PDiTSettings


class TransformerObjective(nn.Module):
    """Consistency loss of the P-DiT; optionally the prompt blocks learn too."""

    name = "pdit"

    def __init__(self, model: NoiseModel, settings: PDiTSettings, precision: Precision) -> None:
        super().__init__()
        self.model = model
        self._settings, self._precision = settings, precision
        model.requires_grad_(True)
        model.autoencoder.requires_grad_(False)
        # Latents come from the encoder as stage 1 left it, since that is the one the decoder knows.
        self._latents = copy.deepcopy(model.autoencoder.encoder)
        if settings.train_prompts:
            if model.config.latent_init != "lossless":
                raise ValueError("train_prompts needs latent_init lossless: a learned latent reads the trained trunk")
            # Only what prompts are made from, or a gradient that never comes would be waited for between devices.
            for part in model.autoencoder.encoder.prompt_parts():
                part.requires_grad_(True)

    def forward(
        self, noise: Tensor, clean: Tensor, reference: Tensor, numbers: Tensor, step: int
    ) -> tuple[Tensor, Figures]:
        """Consistency loss of a batch at a step of the curriculum."""
        settings, model, device = self._settings, self.model, noise.device
        stream = (settings.seed, numbers)
        # In training only, so that the model does not lean on the clean image's last bit (method.md 3).
        clean = clean + 2 * settings.condition_noise * normal("condition", *stream, clean.shape[1:], device)
        with self._precision.autocast():
            with torch.no_grad():
                latent = model.normalise(self._latents.latent(noise))
            with torch.set_grad_enabled(settings.train_prompts and torch.is_grad_enabled()):
                code = model.autoencoder.encoder.prompts(reference)
        loss = consistency_loss(
            model.network(code, clean, self._precision),
            latent,
            eps=normal("consistency", *stream, latent.shape[1:], device),
            level=uniform("level", *stream),
            step=step,
            total_steps=settings.steps,
            schedule=model.schedule,
            kind=settings.loss,
        )
        return loss, {}

    @torch.no_grad()
    def pictures(self, batch: NoiseBatch) -> Pictures:
        """Real noise and one-step samples for the same clean images, in the network's units."""
        model, device = self.model, batch.noise.device
        with self._precision.autocast():
            code = model.autoencoder.encoder.prompts(batch.reference)
        shape = (model.config.latent_channels, batch.noise.shape[-2] // 8, batch.noise.shape[-1] // 8)
        start = normal("pictures", self._settings.seed, batch.numbers, shape, device)
        latent = model.denormalise(one_step(model.network(code, batch.clean, self._precision), start, model.schedule))
        with self._precision.autocast():
            drawn = model.autoencoder.decoder(latent, batch.clean).float()
        return Pictures({"real": batch.noise, "drawn": drawn}, strength(batch.noise, drawn))

    def compile(self) -> None:
        """Compile the transformer in place; the rest is small."""
        self.model.transformer.compile()
