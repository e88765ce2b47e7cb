"""Samples of correlated noise by number, without stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pngmodel.network.presets import ModelConfig
from pngmodel.seeds import generator
from pngmodel.statistics.units import NoiseUnits
from pngmodel.training.samples import NoiseBatch


class MadeSamples:
    """Crops of whitened pairs; a reference crop of its own side where one is wanted."""

    def __init__(
        self, pairs: list[tuple[Tensor, Tensor]], config: ModelConfig, crop: int = 16, reference: int | None = None
    ) -> None:
        units = NoiseUnits(config)
        self.images = []
        for noisy, clean in pairs:
            whitened, fitted = units.fit(noisy, clean)
            self.images.append((units.decorrelated(whitened, fitted), whitened, clean * 2 - 1))
        self.crop, self.reference = crop, reference

    def __getitems__(self, numbers: Sequence[int]) -> NoiseBatch:
        noise, clean, reference = [], [], []
        for number in numbers:
            g = generator("crop", number)
            n, u, c = self.images[int(torch.randint(len(self.images), (), generator=g))]
            window = self._window(c, self.crop, g)
            noise.append(n[window])
            clean.append(c[window])
            reference.append(u[window if self.reference is None else self._window(c, self.reference, g)])
        return NoiseBatch(torch.stack(noise), torch.stack(clean), torch.stack(reference), torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        return f"{len(numbers)} crops"

    @staticmethod
    def _window(image: Tensor, side: int, g: torch.Generator) -> tuple[Any, ...]:
        starts = [2 * int(torch.randint((length - side) // 2 + 1, (), generator=g)) for length in image.shape[-2:]]
        return (slice(None), *(slice(start, start + side) for start in starts))


@pytest.fixture
def samples_of() -> Callable[..., MadeSamples]:
    """:class:`MadeSamples` as a fixture."""
    return MadeSamples
