"""Generator of NAFlow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pngmodel.baselines.naflow.flow import COLOURS, NAFlow
from pngmodel.errors import UserError
from pngmodel.images import pad_to_multiple
from pngmodel.interface import NoisyImageGenerator, Prompts
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed, generator

_PROMPTS = {"mean", "std"}
_LAYOUT = torch.channels_last
_GREEN = 1  # the channel closest to luminance


class NAFlowGenerator(NoisyImageGenerator):
    """Noise-aware sampling: weights the settings by the likelihood of the reference, samples a latent and decodes it.

    Images are processed one by one, so samples do not depend on their batch.
    """

    name = "naflow"
    simplifications = (
        "the Gaussians are those of the camera settings of the training data; pairs without camera or ISO are trained "
        "with the mixture of all",
        "optimiser, batch and number of steps differ (see the card of the bundle); sizes are those of the release "
        "unless the card states otherwise",
        "the constant of the dequantisation and unused layers of the release are omitted",
    )

    def __init__(self, flow: NAFlow, *, device: str = "cpu") -> None:
        self._precision = Precision.best(device)
        # Channels last halves the time of 3 x 3 convolutions on whole images.
        moved: NAFlow = flow.to(self._precision.device).to(memory_format=_LAYOUT)  # type: ignore[call-overload]
        self.flow = moved.eval().requires_grad_(False)
        self._kernels = self.flow.unmixing()

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return ``weights`` of the settings, and ``mean`` and ``std`` of the latent, of a pair (C, H, W) in [0, 1]."""
        factor, device = self.flow.config.downsampling, self._precision.device
        height, width = (side // factor * factor for side in noisy.shape[-2:])
        if not height * width:
            size = f"{noisy.shape[-2]} x {noisy.shape[-1]}"
            raise UserError(f"reference: {size} pixels is too small; use at least {factor} x {factor}")
        # Crop instead of padding, because padded pixels have no camera noise.
        pair = [_as_rgb(image[:, :height, :width].float()) for image in (noisy, clean)]
        condition = self._condition(pair[1], derive_seed("reference"))
        with self._precision.autocast():
            z, _ = self.flow(*(x[None].to(device, memory_format=_LAYOUT) for x in (pair[0], condition)))
        found = self.flow.noise_aware_prior(z.float())
        return {name: value[0].cpu() for name, value in zip(("weights", "mean", "std"), found, strict=True)}

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W) in [0, 1], not rounded; one seed per image."""
        for entry in prompts:
            if missing := _PROMPTS - set(entry):
                raise UserError(f"prompts: {sorted(missing)} are missing; use the result of prompts() of {self.name!r}")
        return torch.stack([self._one(c.cpu(), p, s) for c, p, s in zip(clean, prompts, seeds, strict=True)])

    def _one(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        channels, height, width = clean.shape
        padded = pad_to_multiple(_as_rgb(clean.float())[None], self.flow.config.downsampling)[0]
        condition = self._condition(padded, derive_seed("condition", seed))
        z = self.latent(prompts, padded.shape[-2], padded.shape[-1], seed)
        noisy = self.decode(z[None], condition[None])[0, :, :height, :width].cpu()
        if channels == 1:
            # The flow samples the image, not the noise: add the noise of green to the grey image.
            noisy = clean + (noisy - _as_rgb(clean))[_GREEN : _GREEN + 1]
        return noisy.clamp(0, 1)

    def latent(self, prompts: Prompts, height: int, width: int, seed: int) -> Tensor:
        """Sample a latent (192, H/8, W/8) for an image of height x width from the Gaussian of the reference."""
        config = self.flow.config
        shape = (config.latent_channels, height // config.downsampling, width // config.downsampling)
        eps = torch.randn(shape, generator=generator(seed))
        return prompts["mean"][:, None, None] + prompts["std"][:, None, None] * eps

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Tensor) -> Tensor:
        """Return noisy images (B, 3, H, W), not clamped, of latents and clean images."""
        device = self._precision.device
        with self._precision.autocast():
            z, condition = (x.to(device, memory_format=_LAYOUT) for x in (z, condition))
            return self.flow.inverse(z, condition, self._kernels)

    def _condition(self, clean: Tensor, seed: int) -> Tensor:
        """Add the condition noise, with which the flow was trained, to a clean image (3, H, W)."""
        noise = torch.randn(clean.shape, generator=generator(seed)).to(clean.device)
        return (clean + self.flow.config.condition_noise * noise).clamp(0, 1)


def _as_rgb(image: Tensor) -> Tensor:
    return image.expand(COLOURS, -1, -1) if image.shape[0] == 1 else image
