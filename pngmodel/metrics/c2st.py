"""Classifier two-sample test (C2ST): how well a small network distinguishes generated noise from real noise.

A classifier is trained on some scenes and evaluated on others. The area under its ROC curve (AUC) is 0.5 if it cannot
distinguish both kinds of noise, and 1 if it always can. Unlike histograms and correlations, it is sensitive to tails,
clipping, the period of demosaicing and the dependence on texture.

The AUC also depends on the classifier and its budget, so compare only generators of the same run, which get the same
network, initial weights, patches and steps.

Source: Lopez-Paz and Oquab, ICLR 2017, arXiv 1610.06545.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.errors import UserError
from pngmodel.metrics.differences import PEAK, check_images, to_8bit
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed, generator

PATCH = 64
FLOOR = 0.5
"""AUC of a perfect generator."""

_NOISE_SCALE = 0.1  # per digital number of 8 bits
_WIDTHS = ((24, 1), (32, 2), (48, 1), (64, 2), (64, 1))  # channels and stride
_LEARNING_RATE = 2e-3
_WARM_UP = 0.1  # share of the steps
_MAX_NORM = 1.0
_PATCHES_PER_CALL = 128
_COLOURS = 3


@dataclass(frozen=True)
class Sample:
    """A clean image with real and generated noise, uint8 (3, H, W), at least 64 x 64 pixels."""

    clean: Tensor
    real: Tensor
    generated: Tensor


@dataclass(frozen=True)
class Budget:
    """Training budget of a classifier."""

    steps: int
    batch: int = 32
    """Patches per step, half real and half generated, on the same clean patches."""
    average: int = 1
    """Average noise and clean patch over squares of this side, 1, 2 or 4 pixels, to test at which scale the noise
    differs; 2 removes the period of demosaicing."""


def sample(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> Sample:
    """Create a sample from images (C, H, W) in [0, 1] with 1 or 3 channels.

    All images are rounded to 8 bits; otherwise the classifier could distinguish them by the rounding.

    Raises:
        UserError: The shapes differ, or a side is below 64 pixels.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    if min(clean.shape[-2:]) < PATCH:
        height, width = clean.shape[-2:]
        raise UserError(f"c2st: an image of {height} x {width} pixels is too small; use at least {PATCH} x {PATCH}")
    images = (to_8bit(x).to(torch.uint8).expand(_COLOURS, -1, -1).cpu() for x in (clean, real_noisy, generated))
    return Sample(*images)


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Return the probability that a score of ``positive`` (P,) exceeds one of ``negative`` (N,), in [0, 1]; ties count
    half.

    It is (R - P (P + 1) / 2) / (P N), where R is the sum of the ranks of the positive scores among all scores, with the
    mean rank for equal scores (Mann and Whitney 1947).

    Raises:
        ValueError: One of the inputs is empty, or a score is NaN.
    """
    scores = torch.cat([positive, negative]).double()
    if not len(positive) or not len(negative) or bool(scores.isnan().any()):
        raise ValueError(
            f"area_under_curve: got {len(positive)} positive and {len(negative)} negative scores, with NaN: "
            f"{bool(scores.isnan().any())}; both must be non-empty and not NaN"
        )
    _, group, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank = last - (counts.double() - 1) / 2
    p, n = len(positive), len(negative)
    rank_sum = float(mean_rank[group[:p]].sum())
    return (rank_sum - p * (p + 1) / 2) / (p * n)


class Classifier(nn.Module):
    """Network that maps noise and clean patch (B, 6, 64, 64) to a logit (B,), positive for generated; 87 k parameters.

    It uses batch normalisation instead of a normalisation per image, which would remove the noise level.
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
        """Return logits (B,)."""
        return self.head(self.features(x).mean(dim=(2, 3)))[:, 0]


def c2st_auc(
    train: Sequence[Sample],
    held_out: Sequence[Sample],
    budget: Budget,
    seed: int,
    precision: Precision,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Train a classifier and return its AUC on the held-out samples, about in [0.5, 1], lower is better.

    The result is deterministic for a kind of machine and a number of threads.

    Args:
        train: Training samples.
        held_out: Test samples.
        budget: Training budget.
        seed: Seed of initial weights and patches.
        precision: Device and dtype of the network.
        progress: Called with (done, total) steps.

    Raises:
        UserError: There are no training or no test samples.
    """
    for name, samples in (("training", train), ("held-out", held_out)):
        if not samples:
            raise UserError(f"c2st: there are no {name} samples; add pairs")
    device = precision.device
    with (
        torch.random.fork_rng(devices=[]),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False),
    ):
        torch.manual_seed(derive_seed("c2st classifier", seed))  # layers use the global random generator
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
        # Use the same clean patches for both classes, so that the image content is not informative.
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
    """Factor of the learning rate: linear warm-up, then cosine decay."""
    if done < _WARM_UP:
        return max(done, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


_Window = tuple[Sample, int, int]


def _random_window(samples: Sequence[Sample], stream: torch.Generator) -> _Window:
    def below(count: int) -> int:
        return int(torch.randint(count, (), generator=stream))

    picked = samples[below(len(samples))]
    height, width = picked.clean.shape[-2:]
    # even corners and no flips, to keep the Bayer phase
    return picked, 2 * below((height - PATCH) // 2 + 1), 2 * below((width - PATCH) // 2 + 1)


def _inputs(windows: Sequence[_Window], kind: str, budget: Budget) -> Tensor:
    """Scaled noise and clean patches (B, 6, s, s), with s = 64 / ``budget.average``."""
    patches = []
    for sample_, y, x in windows:
        noisy, clean = (i[:, y : y + PATCH, x : x + PATCH].float() for i in (getattr(sample_, kind), sample_.clean))
        patches.append(torch.cat([(noisy - clean) * _NOISE_SCALE, clean * (2 / PEAK) - 1]))
    return F.avg_pool2d(torch.stack(patches), budget.average)


@torch.no_grad()
def _held_out_scores(
    network: Classifier, samples: Sequence[Sample], kind: str, budget: Budget, precision: Precision
) -> Tensor:
    """Logits of all non-overlapping patches on a grid from the top left corner."""
    windows = [
        (sample_, y, x)
        for sample_ in samples
        for y in range(0, sample_.clean.shape[-2] - PATCH + 1, PATCH)
        for x in range(0, sample_.clean.shape[-1] - PATCH + 1, PATCH)
    ]
    scores = []
    for first in range(0, len(windows), _PATCHES_PER_CALL):
        x = _inputs(windows[first : first + _PATCHES_PER_CALL], kind, budget).to(precision.device)
        with precision.autocast():
            scores.append(network(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(scores)
