"""The noise model: autoencoder, P-DiT and latent statistics in one module."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pngmodel.errors import UserError
from pngmodel.network.autoencoder import Code, PromptAutoencoder
from pngmodel.network.consistency import Network, Schedule
from pngmodel.network.presets import ModelConfig
from pngmodel.network.transformer import PromptDiT


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device supports it in hardware, else float32 (emulated bfloat16 is 80 times slower)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class Precision:
    """Device and dtype of the trunk of the networks. Preconditioning is always float32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def best(cls, device: str | torch.device) -> Precision:
        """Return the fastest safe precision of a device.

        Raises:
            UserError: This machine has no such device.
        """
        try:
            device = torch.device(device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            available = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"device {str(device)!r} cannot be used ({reason}); available devices: {', '.join(available)}"
            ) from None
        return cls(device, fast_dtype(device))

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the trunk; disabled for float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def weights_kept(self, model: NoiseModel) -> NoiseModel:
        """Return an equivalent model for inference in :meth:`autocast`, with converted weights.

        Autocast caches converted weights only if they require gradients. Otherwise every call of a layer converts its
        weights, which takes as long as the computation of one or two tiles.
        """
        if self.dtype == torch.float32:
            return model
        converted = copy.deepcopy(model)
        for part in converted.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                part.to(self.dtype)
        # Channels last is faster for channel norms and for convolutions with few channels.
        channels_last: NoiseModel = converted.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return channels_last


class NoiseModel(nn.Module):
    """PAE and P-DiT. Inputs are noise in model units and clean images in [-1, 1], both (B, 3, H, W)."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = PromptAutoencoder(config)
        self.transformer = PromptDiT(config)
        # Statistics per channel over the training set, to normalise the latent to mean 0 and std sigma_data.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    @property
    def schedule(self) -> Schedule:
        """Noise levels of this configuration."""
        c = self.config
        return Schedule(
            sigma_min=c.sigma_min,
            sigma_max=c.sigma_max,
            sigma_data=c.sigma_data,
            preconditioning=c.preconditioning,
        )

    def normalise(self, latent: Tensor) -> Tensor:
        """Normalise a latent (B, C, h, w) to mean 0 and std sigma_data per channel."""
        scale = self.config.sigma_data / self.latent_std
        return (latent.float() - self.latent_mean[:, None, None]) * scale[:, None, None]

    def denormalise(self, latent: Tensor) -> Tensor:
        """Invert :meth:`normalise`."""
        scale = self.latent_std / self.config.sigma_data
        return latent * scale[:, None, None] + self.latent_mean[:, None, None]

    def expand(self, code: Code, height: int, width: int, precision: Precision) -> list[Tensor]:
        """Return the prompt features of a code for images of height x width."""
        with precision.autocast():
            return self.autoencoder.encoder.expand(code, height, width)

    def network(self, code: Code, clean: Tensor, precision: Precision, prompts: list[Tensor] | None = None) -> Network:
        """Return the network F(x, level) for the consistency functions, with bound prompts and clean image.

        Args:
            code: Prompt code; a batch of one is used for all clean images.
            clean: Clean images (B, 3, H, W) in [-1, 1].
            precision: Device and dtype.
            prompts: Result of :meth:`expand` for the code, if available; it is independent of noise level and image.
        """
        maps = self.expand(code, clean.shape[-2], clean.shape[-1], precision) if prompts is None else prompts

        def bound(x: Tensor, level: Tensor) -> Tensor:
            with precision.autocast():
                return self.transformer(x, level, maps, clean, code.get("statistics"))

        return bound


def latent_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std per channel, (C,) each, of latents (N, C, h, w), accumulated in float64."""
    x = latents.double()
    std, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    return mean.float(), std.clamp(min=1e-6).float()
