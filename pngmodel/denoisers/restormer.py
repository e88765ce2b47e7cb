"""Restormer: a U-Net of transformers with attention between channels (Zamir et al., CVPR 2022, arXiv 2111.09881)."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.layers import COLOURS

_EPSILON = 1e-5


class RestormerConfig(BaseModel):
    """Sizes of the network. The defaults are those of the published denoising model, 26.1 M parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(48, ge=4, description="Channels at full size; each level doubles them.")
    blocks: tuple[int, int, int, int] = Field((4, 6, 6, 8), description="Blocks per level, full size first.")
    refinement: int = Field(4, ge=0, description="Blocks at full size after the decoder.")
    heads: tuple[int, int, int, int] = Field((1, 2, 4, 8), description="Attention heads per level.")
    expansion: float = Field(2.66, gt=0, description="Ratio of hidden to input channels of the feed-forward layer.")

    @model_validator(mode="after")
    def _heads(self) -> RestormerConfig:
        if any(self.width * 2**level % heads for level, heads in enumerate(self.heads)) or self.width % 2:
            raise ValueError(
                f"heads {self.heads} must divide the channels of their levels, and width {self.width} must be even"
            )
        return self


class BiasFreeNorm(nn.Module):
    """Layer normalisation over channels that divides by the std without subtracting the mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().var(dim=1, keepdim=True, correction=0)
        return x * (variance + _EPSILON).rsqrt().to(x.dtype) * self.weight[:, None, None].to(x.dtype)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention: C/h x C/h maps per head, with linear cost in the number of pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Sequential(
            nn.Conv2d(channels, 3 * channels, 1, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False),
        )
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, 3, self.heads, channels // self.heads, height * width).unbind(1)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project((scores.softmax(dim=-1) @ v).reshape(batch, channels, height, width))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network: GELU of one half of the channels times the other half."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.inner = nn.Sequential(
            nn.Conv2d(channels, 2 * hidden, 1, bias=False),
            nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False),
        )
        self.outer = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.inner(x).chunk(2, dim=1)
        return self.outer(F.gelu(first) * second)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward network, both residual."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(BiasFreeNorm(channels), ChannelAttention(channels, heads))
        self.feed_forward = nn.Sequential(BiasFreeNorm(channels), GatedFeedForward(channels, expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _up(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))


class Restormer(nn.Module):
    """U-Net of four levels. Skips are concatenated and, except at full resolution, reduced by 1 x 1 convolutions; the
    image is added to the output."""

    multiple = 8

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(4)]

        def stack(width: int, level: int, count: int) -> nn.Sequential:
            heads, expansion = config.heads[level], config.expansion
            return nn.Sequential(*(TransformerBlock(width, heads, expansion) for _ in range(count)))

        self.embed = nn.Conv2d(COLOURS, config.width, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(stack(w, k, config.blocks[k]) for k, w in enumerate(widths))
        self.downs = nn.ModuleList(_down(w) for w in widths[:3])
        self.ups = nn.ModuleList(_up(w) for w in widths[:0:-1])
        self.reduce = nn.ModuleList(nn.Conv2d(w, w // 2, 1, bias=False) for w in widths[:1:-1])
        self.decoders = nn.ModuleList(
            stack(width, level, config.blocks[level])
            for width, level in ((widths[2], 2), (widths[1], 1), (widths[1], 0))  # full resolution keeps all channels
        )
        self.refinement = stack(widths[1], 0, config.refinement)
        self.output = nn.Conv2d(widths[1], COLOURS, 3, padding=1, bias=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) in [0, 1], with sides that are multiples of ``multiple``; not clamped."""
        x, skips = self.embed(noisy), []
        for encoder, down in zip(self.encoders[:3], self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.encoders[3](x)
        for level, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            x = torch.cat([up(x), skips.pop()], dim=1)
            x = decoder(self.reduce[level](x) if level < len(self.reduce) else x)
        return noisy + self.output(self.refinement(x))
