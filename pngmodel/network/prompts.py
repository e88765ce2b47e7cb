"""Prompt blocks: compact codes of the noise of a reference, and their expansion to feature maps.

A prompt code has a fixed size, independent of the image: softmax weights per level (global), and row and column
profiles of the local correlation (local). Expanding a code gives feature maps of any size.

Source: PNG, CVPR 2026, arXiv 2603.04870, global and local prompt block (GPB, LPB).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.presets import ModelConfig
from pngmodel.statistics.correlation import local_correlation


def fit_map(prompt_map: Tensor, height: int, width: int) -> Tensor:
    """Repeat and crop a learned map (C, h, w) to (C, height, width).

    At the training size this is the map itself. The periodic continuation to other sizes keeps the Bayer phase.
    """
    rows = math.ceil(height / prompt_map.shape[-2])
    columns = math.ceil(width / prompt_map.shape[-1])
    return prompt_map.repeat(1, rows, columns)[:, :height, :width]


class GlobalPromptBlock(nn.Module):
    """Global prompt block: spatial mean and std per channel -> 1 x 1 conv -> softmax over channels -> scaled map."""

    def __init__(self, channels: int, map_size: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2 * channels, channels, 1)
        # initialised to zero, as in the paper
        self.map = nn.Parameter(torch.zeros(channels, map_size, map_size))
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def summarise(self, features: Tensor) -> Tensor:
        """Return softmax weights (B, C) of features (B, C, H, W)."""
        x = features.float()
        std, mean = torch.std_mean(x, dim=(2, 3), correction=0)
        logits = self.weigh(torch.cat([mean, std], 1)[..., None, None])
        return logits.flatten(1).float().softmax(dim=1)

    def expand(self, weights: Tensor, height: int, width: int) -> Tensor:
        """Return prompt features (B, C, height, width) of weights (B, C)."""
        # The softmax sums to 1; multiply by C to make the scale independent of the number of channels.
        scaled = weights * weights.shape[1]
        return self.mix(scaled[..., None, None] * fit_map(self.map, height, width)[None])


class LocalPromptBlock(nn.Module):
    """Local prompt block: local correlation -> row and column means -> CoMB -> softmax over channels -> scaled map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, map_size, width = config.channels[0], config.prompt_map_size, config.correlation_width
        size, self.grid = config.correlation_size, config.correlation_grid
        self.size, self.window, self.stride = size, config.correlation_window, config.correlation_stride
        self.combine = nn.Sequential(
            nn.Conv2d(2 * size**2, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, channels, 1),
        )
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.map = nn.Parameter(torch.zeros(channels, map_size, map_size))
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def summarise(self, noise: Tensor) -> Tensor:
        """Return row and column profiles (B, 2, size**2, grid) of noise (B, 3, H, W), correlations in [-1, 1]."""
        maps = local_correlation(noise, self.size, self.window, self.stride)
        rows = F.adaptive_avg_pool1d(maps.mean(dim=3), self.grid)
        columns = F.adaptive_avg_pool1d(maps.mean(dim=2), self.grid)
        return torch.stack([rows, columns], dim=1)

    def expand(self, profiles: Tensor, height: int, width: int) -> Tensor:
        """Return prompt features (B, C, height, width) of profiles (B, 2, size**2, grid)."""
        rows = profiles[:, 0, :, :, None].expand(-1, -1, -1, self.grid)
        columns = profiles[:, 1, :, None, :].expand(-1, -1, self.grid, -1)
        logits = self.combine(torch.cat([rows, columns], dim=1))
        logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        weights = self.smooth(logits).softmax(dim=1) * logits.shape[1]
        return self.mix(weights * fit_map(self.map, height, width)[None])
