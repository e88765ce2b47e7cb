"""Training samples: sample number n is a pure function of (seed, n), so that any run can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pngmodel.errors import UserError
from pngmodel.training.settings import StageSettings


@dataclass(frozen=True)
class Batch:
    """Samples side by side: every field is a tensor (B, ...), in the order in which an objective takes them."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return type(self)(*(x.to(device, non_blocking=True) for x in self.tensors()))

    def __len__(self) -> int:
        return len(self.tensors()[0])


@dataclass(frozen=True)
class NoiseBatch(Batch):
    """What a noise model learns from."""

    noise: Tensor
    """What the network learns (B, 3, s, s), in the units of :class:`~pngmodel.statistics.units.NoiseUnits` (e)."""
    clean: Tensor
    """Clean image (B, 3, s, s) in [-1, 1]."""
    reference: Tensor
    """Whitened noise (B, 3, r, r) that the prompts are read from (u)."""
    numbers: Tensor
    """Number of each sample, (B,) int64: the seed of everything that is drawn for it."""


@dataclass(frozen=True)
class PairBatch(Batch):
    """What learns from pairs of images: a denoiser, or a noise generator that is told nothing else."""

    noisy: Tensor
    """(B, C, s, s) in [0, 1]."""
    clean: Tensor
    """(B, C, s, s) in [0, 1]."""
    numbers: Tensor
    """Number of each sample, (B,) int64."""


@dataclass(frozen=True)
class LabelledBatch(PairBatch):
    """Pairs that say which camera and ISO they are of."""

    setting: Tensor
    """Index of camera and ISO in a list of both, (B,) int64; -1 where they are not known or not listed."""


AnyBatch = TypeVar("AnyBatch", bound=Batch)
AnyBatch_co = TypeVar("AnyBatch_co", bound=Batch, covariant=True)


class Samples(Protocol[AnyBatch_co]):
    """A source of samples by number, for a ``DataLoader``: picklable, without an end."""

    def __getitems__(self, numbers: Sequence[int]) -> AnyBatch_co:
        """The samples of these numbers."""
        ...

    def describe(self, numbers: Sequence[int]) -> str:
        """Which images they were cut from, for an error message."""
        ...


class BatchNumbers(Sampler[list[int]]):
    """Sample numbers of every forward pass of one device, from a step on.

    Step k uses the numbers k * batch to (k + 1) * batch whatever the number of devices and accumulated parts; they
    are dealt in equal runs, parts first.
    """

    def __init__(self, settings: StageSettings, *, start: int, rank: int = 0, devices: int = 1) -> None:
        """Raises UserError when the batch cannot be dealt equally."""
        self._parts, self._rank, self._devices = settings.gradient_accumulation_steps, rank, devices
        self._batch, self._start, self._steps = settings.batch, start, settings.steps
        if settings.batch % (settings.gradient_accumulation_steps * devices):
            raise UserError(
                f"batch: {settings.batch} is not divisible by {devices} devices times gradient_accumulation_steps "
                f"({settings.gradient_accumulation_steps}); change batch, gradient_accumulation_steps or devices"
            )
        self._size = settings.batch // (settings.gradient_accumulation_steps * devices)

    def __len__(self) -> int:
        return max(0, self._steps - self._start) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._start, self._steps):
            for part in range(self._parts):
                first = step * self._batch + (part * self._devices + self._rank) * self._size
                yield list(range(first, first + self._size))


def load_batches(samples: Samples[AnyBatch], numbers: BatchNumbers, workers: int) -> Iterator[AnyBatch]:
    """Batches in order; with ``workers`` made ahead by that many processes (spawned: storage clients cannot fork)."""
    loader: DataLoader[AnyBatch] = DataLoader(
        samples,  # type: ignore[arg-type]  # a map-style dataset without a length: the sampler has one
        batch_sampler=numbers,
        collate_fn=_as_it_is,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=False,
    )
    return iter(loader)


def _as_it_is(batch: AnyBatch) -> AnyBatch:
    return batch
