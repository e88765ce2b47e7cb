"""Training samples: pairs whitened once in memory, batches that are a pure function of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pngmodel import whitening
from pngmodel.errors import UserError
from pngmodel.seeds import generator
from pngmodel.training.settings import DataSettings

_PHASE = 2  # crops start at even pixels, so that a sensor's 2x2 colour pattern keeps its position


@dataclass(frozen=True)
class TrainingPair:
    """One noisy/clean patch pair, (3, H, W) float32 in [0, 1], and the dataset it came from."""

    noisy: Tensor
    clean: Tensor
    dataset: str


@dataclass(frozen=True)
class Batch:
    """Noise in model units and clean in [-1, 1], (B, 3, s, s); reference noise (B, 3, r, r) for the prompts."""

    noise: Tensor
    clean: Tensor
    reference: Tensor


def resampled(pair: TrainingPair, factor: float) -> TrainingPair:
    """Both images resampled bilinearly with antialiasing: changes the noise's correlation and strength."""
    if factor == 1:
        return pair
    size = [max(16, round(side * factor)) for side in pair.noisy.shape[-2:]]

    def apply(x: Tensor) -> Tensor:
        y = F.interpolate(x[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        # Levels again: what a camera or an editor would have stored.
        return (y.clamp(0, 1) * 255).round() / 255

    return TrainingPair(apply(pair.noisy), apply(pair.clean), pair.dataset)


class WhitenedPairs:
    """All pairs of a training set in model units, with a seekable random batch sampler."""

    def __init__(
        self,
        pairs: Iterator[TrainingPair] | Sequence[TrainingPair],
        kind: whitening.Kind,
        settings: DataSettings,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._noise: list[Tensor] = []
        self._clean: list[Tensor] = []
        datasets: list[str] = []
        for done, original in enumerate(pairs, start=1):
            for factor in settings.scales:
                pair = resampled(original, factor)
                curves = whitening.fit(kind, pair.noisy, pair.clean)
                self._noise.append(whitening.whiten(kind, curves, pair.noisy, pair.clean))
                self._clean.append(pair.clean * 2 - 1)
                datasets.append(pair.dataset)
            progress(done)
        if not datasets:
            raise UserError("training set: no pairs; check the store and the split")
        unknown = set(settings.weights) - set(datasets)
        if unknown:
            raise UserError(f"data.weights: no dataset named {sorted(unknown)}; found {sorted(set(datasets))}")
        count = Counter(datasets)
        # A share beside a number of patches would mean nothing, so all datasets are named or none.
        if settings.weights and (unnamed := set(count) - set(settings.weights)):
            raise UserError(f"data.weights: {sorted(unnamed)} not named; give every dataset a share, or none")
        if settings.weights and sum(settings.weights.values()) <= 0:
            raise UserError(f"data.weights: {settings.weights} have the sum 0; give at least one dataset a share")
        share = {name: settings.weights.get(name, float(patches)) for name, patches in count.items()}
        self._weights = torch.tensor([share[d] / count[d] for d in datasets], dtype=torch.float64)
        self._smallest = min(min(x.shape[-2:]) for x in self._noise)

    def __len__(self) -> int:
        return len(self._noise)

    def batch(self, step: int, *, batch: int, crop: int, reference_crop: int | None, seed: int) -> Batch:
        """The batch of a step: depends on (seed, step) and the settings only, so a resume continues it.

        ``reference_crop`` None: the prompts come from the crop itself.
        """
        g = generator("batch", seed, step)
        smallest = self._smallest
        if crop > smallest:
            raise UserError(f"crop {crop} is larger than the smallest training patch, {smallest} pixels")
        picks = torch.multinomial(self._weights, batch, replacement=True, generator=g).tolist()
        noise, clean, reference = [], [], []
        side = min(reference_crop or crop, smallest)
        for pick in picks:
            top, left = self._corner(pick, crop, g)
            noise.append(self._noise[pick][:, top : top + crop, left : left + crop])
            clean.append(self._clean[pick][:, top : top + crop, left : left + crop])
            if reference_crop is not None:
                top, left = self._corner(pick, side, g)
                reference.append(self._noise[pick][:, top : top + side, left : left + side])
        stacked = torch.stack(noise)
        return Batch(stacked, torch.stack(clean), torch.stack(reference) if reference else stacked)

    def _corner(self, pick: int, side: int, g: torch.Generator) -> tuple[int, int]:
        height, width = self._noise[pick].shape[-2:]
        top = int(torch.randint((height - side) // _PHASE + 1, (1,), generator=g)) * _PHASE
        left = int(torch.randint((width - side) // _PHASE + 1, (1,), generator=g)) * _PHASE
        return top, left
