"""NAFNet: a U-Net of blocks without activation functions (Chen et al., ECCV 2022, arXiv 2204.04676)."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pngmodel.network.layers import COLOURS, ChannelNorm


class NAFNetConfig(BaseModel):
    """Sizes of the network. Default blocks are those of the published SIDD models with width 32 (29.2 M parameters) and
    64 (116 M)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(32, ge=2, multiple_of=2, description="Channels at full size; each level doubles them.")
    encoder: tuple[int, ...] = Field(
        (2, 2, 4, 8), min_length=1, description="Blocks per level of the encoder, full size first."
    )
    middle: int = Field(12, ge=0, description="Blocks at the smallest size.")
    decoder: tuple[int, ...] = Field(
        (2, 2, 2, 2), min_length=1, description="Blocks per level of the decoder, smallest size first."
    )

    @model_validator(mode="after")
    def _levels(self) -> NAFNetConfig:
        if len(self.encoder) != len(self.decoder):
            raise ValueError(f"encoder {self.encoder} and decoder {self.decoder} must have the same number of levels")
        return self


def _gate(x: Tensor) -> Tensor:
    """Multiply both halves of the channels (SimpleGate)."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Depth-wise convolution with channel attention, then a gated feed-forward layer, both residual with a scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.gated_in = nn.Conv2d(channels, 2 * channels, 1)
        self.gated_out = nn.Conv2d(channels, channels, 1)
        # initialised to zero, so that the block starts as the identity
        self.scale1, self.scale2 = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = _gate(self.depthwise(self.widen(self.norm1(x))))
        y = y * self.attention(y.mean(dim=(2, 3), keepdim=True))
        x = x + self.scale1 * self.project(y)
        return x + self.scale2 * self.gated_out(_gate(self.gated_in(self.norm2(x))))


class NAFNet(nn.Module):
    """U-Net with strided convolutions, pixel shuffle and additive skips; the image is added to the output."""

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple = 2 ** len(config.encoder)
        width = config.width
        self.intro = nn.Conv2d(COLOURS, width, 3, padding=1)
        self.ending = nn.Conv2d(width, COLOURS, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for blocks in config.encoder:
            self.encoders.append(_blocks(width, blocks))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle = _blocks(width, config.middle)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for blocks in config.decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(_blocks(width, blocks))

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) in [0, 1], with sides that are multiples of ``multiple``; not clamped."""
        x, skips = self.intro(noisy), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return noisy + self.ending(x)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))
