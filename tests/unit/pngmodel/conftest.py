"""Small models and correlated noise shared by the tests of the science layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import ModelConfig

SMALLEST: dict[str, Any] = {
    "channels": (4, 4, 8, 8),
    "decoder_blocks": (1, 0, 0),
    "prompt_map_size": 16,
    "correlation_stride": 4,
    "correlation_width": 8,
    "correlation_grid": 4,
    "width": 24,
    "depth": 2,
    "heads": 2,
    "dropout": 0.0,
    "condition_kernel": 1,
    "tile": 32,
    "tile_overlap": 8,
}


@pytest.fixture
def smallest() -> Callable[..., ModelConfig]:
    """A model configuration that runs in milliseconds; keywords change fields."""

    def make(**changes: Any) -> ModelConfig:
        return ModelConfig(**(SMALLEST | changes))

    return make


def wake(module: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """Add random values to every parameter, so that zero-initialised layers take part."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += size * torch.randn(p.shape, generator=g)
    return module


@pytest.fixture
def awake() -> Callable[..., nn.Module]:
    """:func:`wake` as a fixture."""
    return wake


@pytest.fixture
def model(smallest: Callable[..., ModelConfig]) -> NoiseModel:
    """A whole model whose output is not trivial."""
    torch.manual_seed(0)
    noise_model = NoiseModel(smallest(whitening="quantiles", calibration="spectrum", statistics="correlation"))
    wake(noise_model)
    return noise_model.eval()


@pytest.fixture
def correlated() -> Callable[..., Tensor]:
    """Gaussian noise (C, H, W) blurred in space, with unit variance."""

    def make(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        white = torch.randn(channels, 1, height + 2, width + 2, generator=g)
        kernel = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0]))
        kernel = kernel / kernel.square().sum().sqrt()
        return F.conv2d(white, kernel[None, None])[:, 0]

    return make
