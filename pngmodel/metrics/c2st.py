"""Classifier two-sample test: can a small network tell generated noise from real noise?

A classifier is trained on some scenes and scored on others: the area under its ROC curve (AUC) there is .5 where it
cannot tell the two apart and 1 where it always can. It sees what histograms and correlations do not: tails, clipping,
the period of demosaicing, how the noise depends on texture (Lopez-Paz and Oquab, ICLR 2017, arXiv 1610.06545).

The figure is one of the classifier and its budget too: it is compared between generators of one run only, all of
which get the same network, initial weights, patches and steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.errors import UserError
from pngmodel.metrics.differences import PEAK, check_images, to_levels
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed, generator

PATCH = 64
FLOOR = 0.5
"""AUC of a generator that no classifier can tell from the camera."""

_NOISE_SCALE = 0.1  # per 8-bit level: noise of 10 levels comes to about 1
_WIDTHS = ((24, 1), (32, 2), (48, 1), (64, 2), (64, 1))  # channels and stride
_LEARNING_RATE = 2e-3
_WARM_UP = 0.1  # share of the steps
_MAX_NORM = 1.0
_AT_ONCE = 128  # patches
_COLOURS = 3


@dataclass(frozen=True)
class Sample:
    """One clean image with both kinds of noise, uint8 levels (3, H, W), at least 64 x 64."""

    clean: Tensor
    real: Tensor
    generated: Tensor


@dataclass(frozen=True)
class Budget:
    """What every classifier gets."""

    steps: int
    batch: int = 32
    """Patches a step: half of them real, half generated, on the same clean patches."""
    average: int = 1
    """Noise and clean patch are averaged over squares of so many pixels first: 1, 2 or 4. Says at which scale the
    classifier finds its evidence; 2 hides the period of demosaicing."""


def sample(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> Sample:
    """A sample of images (C, H, W) in [0, 1], C 1 or 3; both noisy ones are rounded to 8 bits, as the clean one is.

    Rounding only one of them would give the classifier its answer.

    Raises:
        UserError: shapes differ, or a side is below 64.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    if min(clean.shape[-2:]) < PATCH:
        raise UserError(f"c2st: an image of {tuple(clean.shape[-2:])} pixels holds no patch of {PATCH} x {PATCH}")
    levels = (to_levels(x).to(torch.uint8).expand(_COLOURS, -1, -1).cpu() for x in (clean, real_noisy, generated))
    return Sample(*levels)


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Chance that a score of ``positive`` (P,) exceeds one of ``negative`` (N,), ties counting half; in [0, 1].

    (R - P (P + 1) / 2) / (P N), where R is the sum of the positives' ranks among all, equal scores sharing their mean
    rank (Mann and Whitney 1947).

    Raises:
        ValueError: no scores of one kind, or NaN.
    """
    scores = torch.cat([positive, negative]).double()
    if not len(positive) or not len(negative) or bool(scores.isnan().any()):
        raise ValueError(f"area_under_curve: {len(positive)} and {len(negative)} scores, NaN: {scores.isnan().any()}")
    _, group, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank = last - (counts.double() - 1) / 2
    p, n = len(positive), len(negative)
    rank_sum = float(mean_rank[group[:p]].sum())
    return (rank_sum - p * (p + 1) / 2) / (p * n)


class Classifier(nn.Module):
    """Noise and clean patch (B, 6, 64, 64) -> logit (B,), positive for generated. 87 k parameters.

    Batch normalisation and not one per image: the strength of an image's noise is evidence.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2 * _COLOURS
        for width, stride in _WIDTHS:
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,)."""
        return self.head(self.features(x).mean(dim=(2, 3)))[:, 0]


def c2st_auc(
    train: Sequence[Sample],
    held_out: Sequence[Sample],
    budget: Budget,
    seed: int,
    precision: Precision,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Train one classifier and return its AUC on the held-out samples, about [.5, 1], lower is better.

    Deterministic for one kind of machine and number of threads. ``progress`` is called with (steps done, steps).

    Raises:
        UserError: there is no sample to train on or to hold out.
    """
    for name, samples in (("train on", train), ("hold out", held_out)):
        if not samples:
            raise UserError(f"c2st: no sample to {name}")
    device = precision.device
    with (
        torch.random.fork_rng(devices=[]),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False),
    ):
        torch.manual_seed(derive_seed("c2st classifier", seed))  # layers draw their weights from the global stream
        network = Classifier().to(device)
        _train(network, train, budget, seed, precision, progress)
    network.eval()
    real, generated = (_held_out_scores(network, held_out, kind, budget, precision) for kind in ("real", "generated"))
    return area_under_curve(generated, real)


def _train(
    network: Classifier,
    samples: Sequence[Sample],
    budget: Budget,
    seed: int,
    precision: Precision,
    progress: Callable[[int, int], None],
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / budget.steps))
    stream, half = generator("c2st patches", seed), budget.batch // 2
    labels = torch.cat([torch.zeros(half), torch.ones(half)]).to(precision.device)
    for step in range(budget.steps):
        windows = [_random_window(samples, stream) for _ in range(half)]
        # The same clean patches for both kinds: what is on the picture says nothing about the class.
        x = torch.cat([_inputs(windows, kind, budget) for kind in ("real", "generated")]).to(precision.device)
        with precision.autocast():
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _MAX_NORM)
        optimiser.step()
        schedule.step()
        progress(step + 1, budget.steps)


def _rate(done: float) -> float:
    """Share of the learning rate: a linear rise, then half a cosine."""
    if done < _WARM_UP:
        return max(done, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


_Window = tuple[Sample, int, int]


def _random_window(samples: Sequence[Sample], stream: torch.Generator) -> _Window:
    def below(count: int) -> int:
        return int(torch.randint(count, (), generator=stream))

    chosen = samples[below(len(samples))]
    height, width = chosen.clean.shape[-2:]
    # Even corners, no flips: the period of demosaicing keeps its phase and can be learned.
    return chosen, 2 * below((height - PATCH) // 2 + 1), 2 * below((width - PATCH) // 2 + 1)


def _inputs(windows: Sequence[_Window], kind: str, budget: Budget) -> Tensor:
    """Noise and clean patches (B, 6, 64, 64), both of about unit size; smaller when they are averaged."""
    patches = []
    for chosen, y, x in windows:
        noisy, clean = (i[:, y : y + PATCH, x : x + PATCH].float() for i in (getattr(chosen, kind), chosen.clean))
        patches.append(torch.cat([(noisy - clean) * _NOISE_SCALE, clean * (2 / PEAK) - 1]))
    return F.avg_pool2d(torch.stack(patches), budget.average)


@torch.no_grad()
def _held_out_scores(
    network: Classifier, samples: Sequence[Sample], kind: str, budget: Budget, precision: Precision
) -> Tensor:
    """Logits of all patches that do not overlap, flush with the top left corner."""
    windows = [
        (chosen, y, x)
        for chosen in samples
        for y in range(0, chosen.clean.shape[-2] - PATCH + 1, PATCH)
        for x in range(0, chosen.clean.shape[-1] - PATCH + 1, PATCH)
    ]
    scores = []
    for first in range(0, len(windows), _AT_ONCE):
        x = _inputs(windows[first : first + _AT_ONCE], kind, budget).to(precision.device)
        with precision.autocast():
            scores.append(network(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(scores)
