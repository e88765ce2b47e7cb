"""Stage 2: consistency training of the prompt DiT in the latent space.

Source: PNG, CVPR 2026, arXiv 2603.04870, section on the prompt DiT; iCT (Song and Dhariwal), arXiv 2310.14189.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pngmodel.network.consistency import consistency_loss, one_step
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.training.objective import Metrics, Pictures, noise_comparison
from pngmodel.training.random import normal, uniform
from pngmodel.training.samples import NoiseBatch
from pngmodel.training.settings import PDiTSettings


class TransformerObjective(nn.Module):
    """Consistency loss of the P-DiT; optionally trains the prompt blocks as well."""

    name = "pdit"

    def __init__(self, model: NoiseModel, settings: PDiTSettings, precision: Precision) -> None:
        super().__init__()
        self.model = model
        self._settings, self._precision = settings, precision
        model.requires_grad_(True)
        model.autoencoder.requires_grad_(False)
        # Compute latents with the encoder of stage 1, for which the decoder was trained.
        self._latents = copy.deepcopy(model.autoencoder.encoder)
        if settings.train_prompts:
            if model.config.latent_init != "lossless":
                raise ValueError("train_prompts requires latent_init 'lossless': a learned latent shares the trunk")
            # Train only the parts that compute prompts: distributed training waits for gradients of all parameters.
            for part in model.autoencoder.encoder.prompt_parts():
                part.requires_grad_(True)

    def forward(
        self, noise: Tensor, clean: Tensor, reference: Tensor, numbers: Tensor, step: int
    ) -> tuple[Tensor, Metrics]:
        """Return the consistency loss of a batch at a step of the curriculum."""
        settings, model, device = self._settings, self.model, noise.device
        stream = (settings.seed, numbers)
        # Noise on the clean condition, in training only: the model must not rely on its least significant bits.
        # Source: the authors' released configuration of PNG.
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
        """Return real noise and one-step samples for the same clean images, in the units of the network."""
        model, device = self.model, batch.noise.device
        with self._precision.autocast():
            code = model.autoencoder.encoder.prompts(batch.reference)
        shape = (model.config.latent_channels, batch.noise.shape[-2] // 8, batch.noise.shape[-1] // 8)
        start = normal("pictures", self._settings.seed, batch.numbers, shape, device)
        latent = model.denormalise(one_step(model.network(code, batch.clean, self._precision), start, model.schedule))
        with self._precision.autocast():
            generated = model.autoencoder.decoder(latent, batch.clean).float()
        rows = {"real": batch.noise, "generated": generated}
        return Pictures(rows, noise_comparison(batch.noise, generated))

    def compile(self) -> None:
        """Compile the transformer in place; the other parts are small."""
        self.model.transformer.compile()
