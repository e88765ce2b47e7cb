"""Random numbers of training: each sample's own, whatever batch or device it is in."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.seeds import derive_seed


def normal(name: str, seed: int, numbers: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers (B, *shape) on ``device``; row k is a function of (name, seed, numbers[k])."""
    out = torch.empty((len(numbers), *shape), device=device)
    source = torch.Generator(device)
    for row, number in zip(out, numbers.tolist(), strict=True):
        torch.randn(shape, generator=source.manual_seed(derive_seed(name, seed, number)), out=row, device=device)
    return out


def uniforms(name: str, seed: int, numbers: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers in [0, 1), (B, *shape) on ``device``, by the rule of :func:`normal`."""
    out = torch.empty((len(numbers), *shape), device=device)
    source = torch.Generator(device)
    for row, number in zip(out, numbers.tolist(), strict=True):
        torch.rand(shape, generator=source.manual_seed(derive_seed(name, seed, number)), out=row, device=device)
    return out


def uniform(name: str, seed: int, numbers: Tensor) -> Tensor:
    """Numbers in [0, 1), (B,) float64 on the CPU, by the same rule."""
    drawn = [torch.rand((), generator=_seeded(name, seed, n), dtype=torch.float64) for n in numbers.tolist()]
    return torch.stack(drawn)


def _seeded(name: str, seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(name, seed, number))
