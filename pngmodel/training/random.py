"""Random numbers per training sample, independent of batch and number of devices."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.seeds import derive_seed


def normal(name: str, seed: int, numbers: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return standard normal numbers (B, *shape) on ``device``; row k depends only on (name, seed, numbers[k])."""
    out = torch.empty((len(numbers), *shape), device=device)
    source = torch.Generator(device)
    for row, number in zip(out, numbers.tolist(), strict=True):
        torch.randn(shape, generator=source.manual_seed(derive_seed(name, seed, number)), out=row, device=device)
    return out


def uniforms(name: str, seed: int, numbers: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return uniform numbers in [0, 1), (B, *shape) on ``device``, seeded as in :func:`normal`."""
    out = torch.empty((len(numbers), *shape), device=device)
    source = torch.Generator(device)
    for row, number in zip(out, numbers.tolist(), strict=True):
        torch.rand(shape, generator=source.manual_seed(derive_seed(name, seed, number)), out=row, device=device)
    return out


def uniform(name: str, seed: int, numbers: Tensor) -> Tensor:
    """Return uniform numbers in [0, 1), (B,) float64 on the CPU, seeded as in :func:`normal`."""
    values = [torch.rand((), generator=_seeded(name, seed, n), dtype=torch.float64) for n in numbers.tolist()]
    return torch.stack(values)


def _seeded(name: str, seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(name, seed, number))
