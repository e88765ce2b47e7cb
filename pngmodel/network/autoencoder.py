"""Prompt autoencoder (PAE): encodes noise into a latent and prompts, decodes latent and clean image into noise.

Source: PNG, CVPR 2026, arXiv 2603.04870, section on the prompt autoencoder; channels and strides follow the authors'
released configuration.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.layers import ResidualBlock, zeroed
from pngmodel.network.presets import DOWNSAMPLING, LEVELS, ModelConfig
from pngmodel.network.prompts import GlobalPromptBlock, LocalPromptBlock
from pngmodel.statistics.correlation import correlation_statistics

Code = dict[str, Tensor]
"""Compact prompts of a batch: ``global_0``..``global_3`` (B, C_l), ``local`` (B, 2, rho**2, grid) and, if configured,
``statistics`` (B, 63)."""

_COLOURS = 3


class PromptEncoder(nn.Module):
    """Encodes noise (B, 3, H, W), H and W multiples of 8, into a latent (B, latent, H/8, W/8) and prompts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        use_global, use_local = config.prompts != "none", config.prompts == "global+local"
        self.stem = nn.Conv2d(_COLOURS, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(channels[level - 1], channels[level], 3, stride=2, padding=1) for level in range(1, LEVELS)
        )
        self.global_prompts = nn.ModuleList(
            GlobalPromptBlock(c, config.prompt_map_size >> level) for level, c in enumerate(channels) if use_global
        )
        self.local_prompt = LocalPromptBlock(config) if use_local else None
        merged = [c * (1 + use_global + (use_local and level == 0)) for level, c in enumerate(channels)]
        self.blocks = nn.ModuleList(
            nn.Sequential(ResidualBlock(m, c), ResidualBlock(c, c)) for m, c in zip(merged, channels, strict=True)
        )
        self.head = nn.Conv2d(channels[-1], config.latent_channels, 3, padding=1)
        if config.latent_init == "lossless":
            zeroed(self.head)

    def forward(self, noise: Tensor) -> tuple[Tensor, Code]:
        """Return the latent and the prompt code of ``noise``."""
        features, code = self._features(noise)
        latent = self.head(features)
        if self.config.latent_init == "lossless":
            latent = latent + F.pixel_unshuffle(noise, DOWNSAMPLING)
        return latent, code

    def latent(self, noise: Tensor) -> Tensor:
        """Return the latent of ``noise`` only."""
        if self.config.latent_init == "lossless" and not any(bool(p.any()) for p in self.head.parameters()):
            # The residual is still zero, so the latent is the pixel unshuffle alone: skip the trunk.
            return F.pixel_unshuffle(noise, DOWNSAMPLING)
        return self(noise)[0]

    def prompts(self, noise: Tensor) -> Code:
        """Return the prompt code of ``noise`` only."""
        code = self._features(noise, whole=False)[1]
        return code if self.config.statistics == "none" else code | {"statistics": correlation_statistics(noise)}

    def prompt_parts(self) -> list[nn.Module]:
        """Return the modules that compute prompts, without those that only compute the latent."""
        if not self.global_prompts:
            return []
        parts: list[nn.Module] = [self.stem, self.down, *self.blocks[:-1], self.global_prompts]
        return parts if self.local_prompt is None else [*parts, self.local_prompt]

    def _features(self, noise: Tensor, *, whole: bool = True) -> tuple[Tensor, Code]:
        """Features at 1/8 of the side, and the code; if not ``whole``, stop when the code is complete."""
        code: Code = {}
        x = self.stem(noise)
        for level, block in enumerate(self.blocks):
            if level:
                x = self.down[level - 1](x)
            parts = [x]
            if self.global_prompts:
                code[f"global_{level}"] = self._global(level).summarise(x)
            if level == 0 and self.local_prompt is not None:
                code["local"] = self.local_prompt.summarise(noise)
            if level == LEVELS - 1 and not whole:
                break
            parts += self._expand_level(code, level, x.shape[-2], x.shape[-1])
            x = block(torch.cat(parts, dim=1))
        return x, code

    def _global(self, level: int) -> GlobalPromptBlock:
        block = self.global_prompts[level]
        assert isinstance(block, GlobalPromptBlock)
        return block

    def _expand_level(self, code: Code, level: int, height: int, width: int) -> list[Tensor]:
        maps = []
        if self.global_prompts:
            maps.append(self._global(level).expand(code[f"global_{level}"], height, width))
        if level == 0 and self.local_prompt is not None:
            maps.append(self.local_prompt.expand(code["local"], height, width))
        return maps

    def expand(self, code: Code, height: int, width: int) -> list[Tensor]:
        """Return prompt features for an image of height x width: (B, C_l, H/2^l, W/2^l) per prompt block."""
        maps: list[Tensor] = []
        for level in range(LEVELS):
            maps += self._expand_level(code, level, height >> level, width >> level)
        return maps


class NoiseDecoder(nn.Module):
    """Decodes latent and clean image into noise (B, 3, H, W).

    At each scale, a 3 x 3 convolution of the pixel-unshuffled clean image is added, so that the noise depends on the
    signal.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.channels[3], config.channels[2], config.channels[1], config.channels[0])
        self.stem = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.clean = nn.ModuleList(
            nn.Conv2d(_COLOURS * (DOWNSAMPLING >> level) ** 2, width, 3, padding=1)
            for level, width in enumerate(widths)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, width) for _ in range(count)))
            for width, count in zip(widths, (*config.decoder_blocks, 0), strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.head = nn.Sequential(nn.GELU(), nn.Conv2d(widths[-1], _COLOURS, 3, padding=1))
        if config.latent_init == "lossless":
            zeroed(self.head[1])  # type: ignore[arg-type]

    def forward(self, latent: Tensor, clean: Tensor) -> Tensor:
        """Return noise of the size of ``clean`` (B, 3, H, W) in [-1, 1]."""
        x = self.stem(latent)
        for level, block in enumerate(self.blocks):
            if level:
                x = self.up[level - 1](F.interpolate(x, scale_factor=2, mode="nearest"))
            factor = DOWNSAMPLING >> level
            x = block(x + self.clean[level](F.pixel_unshuffle(clean, factor) if factor > 1 else clean))
        noise: Tensor = self.head(x)
        if self.config.latent_init == "lossless":
            noise = noise + F.pixel_shuffle(latent, DOWNSAMPLING)
        return noise


class PromptAutoencoder(nn.Module):
    """Encoder and decoder, trained together in stage 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = PromptEncoder(config)
        self.decoder = NoiseDecoder(config)

    def forward(self, noise: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstructed noise, latent) of noise (B, 3, H, W) given clean in [-1, 1]."""
        latent, _ = self.encoder(noise)
        return self.decoder(latent, clean), latent
