"""Numbered training samples. Sample n depends only on (seed, n), so that training can resume at any step."""

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
    """A batch of samples: every field is a tensor (B, ...), in the order of the arguments of the objective."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        return type(self)(*(x.to(device, non_blocking=True) for x in self.tensors()))

    def __len__(self) -> int:
        return len(self.tensors()[0])


@dataclass(frozen=True)
class NoiseBatch(Batch):
    """Training batch of a noise model."""

    noise: Tensor
    """Target noise e, (B, 3, s, s), in the units of :class:`~pngmodel.statistics.units.NoiseUnits`."""
    clean: Tensor
    """Clean image, (B, 3, s, s) in [-1, 1]."""
    reference: Tensor
    """Whitened noise u, (B, 3, r, r), the input of the prompt encoder."""
    numbers: Tensor
    """Number of each sample, (B,) int64; seeds its random numbers."""


@dataclass(frozen=True)
class PairBatch(Batch):
    """Batch of image pairs, for denoisers and baselines."""

    noisy: Tensor
    """Noisy images, (B, C, s, s) in [0, 1]."""
    clean: Tensor
    """Clean images, (B, C, s, s) in [0, 1]."""
    numbers: Tensor
    """Number of each sample, (B,) int64."""


@dataclass(frozen=True)
class LabelledBatch(PairBatch):
    """Batch of image pairs with camera settings."""

    setting: Tensor
    """Index of the camera setting (camera and ISO), (B,) int64; -1 if unknown or not listed."""


AnyBatch = TypeVar("AnyBatch", bound=Batch)
AnyBatch_co = TypeVar("AnyBatch_co", bound=Batch, covariant=True)


class Samples(Protocol[AnyBatch_co]):
    """An unlimited, picklable source of numbered samples for a ``DataLoader``."""

    def __getitems__(self, numbers: Sequence[int]) -> AnyBatch_co:
        """Return the samples with these numbers."""
        ...

    def describe(self, numbers: Sequence[int]) -> str:
        """Describe the images of these samples, for error messages."""
        ...


class BatchNumbers(Sampler[list[int]]):
    """Sample numbers of every forward pass of one device.

    Step k uses the numbers k * batch to (k + 1) * batch - 1 for any number of devices and gradient accumulation steps.
    They are split into equal consecutive runs, first by accumulation step, then by device.
    """

    def __init__(self, settings: StageSettings, *, start: int, rank: int = 0, devices: int = 1) -> None:
        """
        Args:
            settings: Settings of the stage.
            start: First step.
            rank: Rank of the device.
            devices: Number of devices.

        Raises:
            UserError: The batch is not divisible by devices times gradient accumulation steps.
        """
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
    """Yield batches in order, prepared by ``workers`` processes (spawned, because storage clients cannot fork)."""
    loader: DataLoader[AnyBatch] = DataLoader(
        samples,  # type: ignore[arg-type]  # a map-style dataset without a length: the sampler has one
        batch_sampler=numbers,
        collate_fn=_identity,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=False,
    )
    return iter(loader)


def _identity(batch: AnyBatch) -> AnyBatch:
    return batch
