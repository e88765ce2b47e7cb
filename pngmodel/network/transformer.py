"""Prompt DiT (P-DiT): a diffusion transformer with Prompt Attention, which is conditioned on prompts.

Source: PNG, CVPR 2026, arXiv 2603.04870, section on the prompt DiT; DiT, arXiv 2212.09748.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.layers import zeroed
from pngmodel.network.presets import DOWNSAMPLING, LEVELS, ModelConfig
from pngmodel.statistics.correlation import STATISTICS

_COLOURS = 3
_FREQUENCIES = 256


def sinusoidal(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Return sine and cosine features (..., width) of ``values`` (...); wavelengths from 2 pi to 2 pi ``longest``."""
    steps = torch.arange(width // 2, device=values.device, dtype=torch.float32)
    angles = values.float()[..., None] * torch.exp(-math.log(longest) * steps / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Return position features (rows * columns, width): half for the row, half for the column."""
    y = sinusoidal(torch.arange(rows, device=device), width // 2)
    x = sinusoidal(torch.arange(columns, device=device), width // 2)
    return torch.cat([y[:, None].expand(-1, columns, -1), x[None].expand(rows, -1, -1)], dim=-1).flatten(0, 1)


class FCond(NamedTuple):
    """F_cond of the paper, (B, tokens, width), in two parts if one reference is used for several clean images.

    Then ``shared`` (1, tokens, width - s) depends on the reference, and ``own`` (B, tokens, s) on each clean image.
    """

    shared: Tensor
    own: Tensor | None = None

    def mean(self) -> Tensor:
        """Return the mean over tokens, (B, width)."""
        mean = self.shared.mean(dim=1)
        if self.own is None:
            return mean
        return torch.cat([mean.expand(self.own.shape[0], -1), self.own.mean(dim=1)], dim=1)


class Condition(nn.Module):
    """Prompt features and clean image, each pixel-unshuffled to the token grid, projected and concatenated.

    The mean over tokens is added to the time embedding. Prompt features and statistics of a batch of one are used for
    all clean images.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs: list[int] = []
        for level in range(LEVELS):
            size = config.channels[level] * (DOWNSAMPLING >> level) ** 2
            if config.prompts != "none":
                inputs.append(size)
            if level == 0 and config.prompts == "global+local":
                inputs.append(size)
        inputs.append(_COLOURS * DOWNSAMPLING**2)
        share = config.width // len(inputs)
        outputs = [share] * (len(inputs) - 1)
        outputs.append(config.width - sum(outputs))  # the clean image gets the remainder
        self.statistics = nn.Linear(STATISTICS, config.width) if config.statistics == "correlation" else None
        kernel = config.condition_kernel
        self.project = nn.ModuleList(
            nn.Conv2d(i, o, kernel, padding=kernel // 2) for i, o in zip(inputs, outputs, strict=True)
        )

    def forward(self, prompts: list[Tensor], clean: Tensor, statistics: Tensor | None) -> FCond:
        rows = clean.shape[-2] // DOWNSAMPLING
        projected = []
        for features, project in zip([*prompts, clean], self.project, strict=True):
            factor = features.shape[-2] // rows
            projected.append(project(F.pixel_unshuffle(features, factor) if factor > 1 else features))
        *of_reference, of_clean = projected
        if not of_reference or of_reference[0].shape[0] == clean.shape[0]:
            return FCond(self._tokens(projected, statistics))
        return FCond(
            self._tokens(of_reference, statistics, stop=-of_clean.shape[1]),
            self._tokens([of_clean], statistics, start=-of_clean.shape[1]),
        )

    def _tokens(
        self, maps: list[Tensor], statistics: Tensor | None, start: int | None = None, stop: int | None = None
    ) -> Tensor:
        """Channels ``start`` to ``stop`` of F_cond, (B, tokens, channels)."""
        # Contiguous, because a linear layer on a transposed view is computed per sample with copies of the weights.
        tokens = torch.cat(maps, dim=1).flatten(2).transpose(1, 2).contiguous()
        if self.statistics is not None:
            tokens = tokens + self.statistics(statistics)[:, None, start:stop]
        return tokens


class PromptAttention(nn.Module):
    """Self-attention with a second, zero-initialised projection of F_cond added to queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.prompt_qkv = zeroed(nn.Linear(config.width, 3 * config.width)) if config.condition == "attention" else None
        # learned temperature, because q and k are normalised
        self.log_scale = nn.Parameter(torch.full((config.heads, 1, 1), math.log(10.0)))
        self.out = nn.Linear(config.width, config.width)

    def _qkv(self, x: Tensor, condition: FCond) -> Tensor:
        """Queries, keys and values (B, tokens, 3 width) of tokens and F_cond."""
        if self.prompt_qkv is None:
            return self.qkv(x)
        if condition.own is None:
            return self.qkv(x) + self.prompt_qkv(condition.shared)
        # Compute the part of the reference once; compute that of the clean images together with the tokens.
        split = condition.shared.shape[-1]
        of_reference, of_clean = self.prompt_qkv.weight[:, :split], self.prompt_qkv.weight[:, split:]
        shared = F.linear(condition.shared, of_reference, self.prompt_qkv.bias)
        weight = torch.cat([self.qkv.weight, of_clean], dim=1)
        return F.linear(torch.cat([x, condition.own.to(x.dtype)], dim=-1), weight, self.qkv.bias) + shared

    def forward(self, x: Tensor, condition: FCond) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self._qkv(x, condition).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = F.normalize(q.float(), dim=-1) * self.log_scale.clamp(max=math.log(100.0)).exp()
        q, k = q.to(v.dtype), F.normalize(k.float(), dim=-1).to(v.dtype)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=1.0)
        return self.out(x.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Prompt Attention and MLP, both modulated by the time embedding (adaLN-Zero)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = PromptAttention(config)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh"),
            nn.Dropout(config.dropout),
            nn.Linear(4 * width, width),
        )
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, condition: FCond, embedding: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, condition)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class PromptDiT(nn.Module):
    """The network F(c_in x, c_noise; prompts, clean) of the consistency model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.width = width
        self.embed = nn.Linear(config.latent_channels, width)
        self.condition = Condition(config)
        self.time = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.pool = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 2 * width)))
        self.head = zeroed(nn.Linear(width, config.latent_channels))

    def forward(
        self, x: Tensor, noise_level: Tensor, prompts: list[Tensor], clean: Tensor, statistics: Tensor | None = None
    ) -> Tensor:
        """Return F, (B, latent, h, w).

        Args:
            x: Scaled latents (B, latent, h, w).
            noise_level: ln(sigma)/4, (B,).
            prompts: Prompt features of the autoencoder.
            clean: Clean images (B, 3, 8 h, 8 w) in [-1, 1].
            statistics: Correlation statistics (B, 63) if configured, see :func:`correlation_statistics`.
        """
        batch, channels, rows, columns = x.shape
        condition = self.condition(prompts, clean, statistics)
        tokens = self.embed(x.flatten(2).transpose(1, 2))
        tokens = tokens + grid_positions(rows, columns, self.width, x.device).to(tokens.dtype)
        # The factor 1000 adapts ln(sigma)/4 (about -1.6 to 1.1) to the wavelengths of the sinusoids.
        embedding = self.time(sinusoidal(1000 * noise_level, _FREQUENCIES)) + self.pool(condition.mean())
        for block in self.blocks:
            tokens = block(tokens, condition, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        out = self.head(self.norm(tokens) * (1 + scale) + shift)
        return out.transpose(1, 2).reshape(batch, channels, rows, columns)
