"""The whole noise model: autoencoder, P-DiT and latent statistics in one module."""

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
    """bfloat16 where the device multiplies it in hardware, float32 elsewhere (it is 80x slower in emulation)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class Precision:
    """Where and how the network's trunk is computed; preconditioning is float32 always."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def best(cls, device: str | torch.device) -> Precision:
        """The fastest safe precision of ``device``.

        Raises:
            UserError: this machine has no such device.
        """
        try:
            device = torch.device(device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            there = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
            reason = str(error).partition("\n")[0]
            raise UserError(f"device {str(device)!r} cannot be used ({reason}); here are: {', '.join(there)}") from None
        return cls(device, fast_dtype(device))

    def autocast(self) -> torch.autocast:
        """Context in which the trunk runs; does nothing for float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def weights_kept(self, model: NoiseModel) -> NoiseModel:
        """A model of the same function in :meth:`autocast` without gradients, whose weights need no conversion.

        Autocast remembers converted weights only while they are trained; otherwise every layer of every call converts
        its own, which for the tiles of one image takes as long as the arithmetic of one or two of them.
        """
        if self.dtype == torch.float32:
            return model
        kept = copy.deepcopy(model)
        for part in kept.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                part.to(self.dtype)
        # Channels last: what the norms over channels read, and the faster layout for convolutions of few channels.
        laid_out: NoiseModel = kept.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return laid_out


class NoiseModel(nn.Module):
    """PAE + P-DiT. All images inside are noise in model units and clean in [-1, 1], (B, 3, H, W)."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = PromptAutoencoder(config)
        self.transformer = PromptDiT(config)
        # Per channel over the training set; the latent that the P-DiT sees has mean 0 and std sigma_data.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    @property
    def schedule(self) -> Schedule:
        """Noise levels that this configuration was trained with."""
        c = self.config
        return Schedule(
            sigma_min=c.sigma_min,
            sigma_max=c.sigma_max,
            sigma_data=c.sigma_data,
            preconditioning=c.preconditioning,
        )

    def normalise(self, latent: Tensor) -> Tensor:
        """Latent (B, C, h, w) -> mean 0, std sigma_data per channel."""
        scale = self.config.sigma_data / self.latent_std
        return (latent.float() - self.latent_mean[:, None, None]) * scale[:, None, None]

    def denormalise(self, latent: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`."""
        scale = self.latent_std / self.config.sigma_data
        return latent * scale[:, None, None] + self.latent_mean[:, None, None]

    def expand(self, code: Code, height: int, width: int, precision: Precision) -> list[Tensor]:
        """Prompt features of a code for images of height x width."""
        with precision.autocast():
            return self.autoencoder.encoder.expand(code, height, width)

    def network(self, code: Code, clean: Tensor, precision: Precision, prompts: list[Tensor] | None = None) -> Network:
        """Bind prompts and clean image: the F(x, level) that the consistency functions take.

        ``prompts`` are what :meth:`expand` returned for the code, where they are at hand: they depend neither on the
        noise level nor on the clean image. A code of a batch of one serves all clean images.
        """
        maps = self.expand(code, clean.shape[-2], clean.shape[-1], precision) if prompts is None else prompts

        def bound(x: Tensor, level: Tensor) -> Tensor:
            with precision.autocast():
                return self.transformer(x, level, maps, clean, code.get("statistics"))

        return bound


def latent_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std per channel, (C,) each, of latents (N, C, h, w); accumulated in float64."""
    x = latents.double()
    std, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    return mean.float(), std.clamp(min=1e-6).float()
