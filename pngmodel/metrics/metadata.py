"""Do prompts tell the camera? A small network on frozen prompts, beside one of as many parameters on the noise itself.

Both are trained to name the camera (or camera and ISO) and scored on scenes that they were not trained on.

Prompts that hold what distinguishes cameras are told apart better than raw noise by an equal budget (PNG, arXiv
2603.04870: 94.47 % against 75.80 % for the camera).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed, generator

TOP = 3
_DROPOUT = 0.2
_WEIGHT_DECAY = 1e-2
_WARM_UP = 0.1  # share of the steps
_STAGES = (1, 1, 2, 2, 4)  # widths of the raw network's convolutions, in units
_MOST_OFF = 0.05  # of the parameters of one network beside those of the other


@dataclass(frozen=True)
class Budget:
    """What both networks get."""

    steps: int
    batch: int = 32
    hidden: int = 64
    """Units of the prompts' network; it decides the parameters of both."""
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Scored:
    """Held-out logits (N, K), float32, and classes (N,)."""

    logits: Tensor
    labels: Tensor


class PromptHead(nn.Module):
    """Prompt features (B, D), standardised -> logits (B, K)."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.layers(x)


class NoiseHead(nn.Module):
    """Noise (B, 3, H, W) of any size from 32 -> logits (B, K): five convolutions of stride 2, mean over space, and the
    layers of :class:`PromptHead`. ``width`` and ``hidden`` decide its parameters (:func:`noise_head`)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for times in _STAGES:
            layers += [nn.Conv2d(before, width * times, 3, 2, 1, bias=False), nn.BatchNorm2d(width * times), nn.ReLU()]
            before = width * times
        self.features = nn.Sequential(*layers)
        self.layers = PromptHead(before, hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.layers(self.features(x).mean(dim=(2, 3)))


def parameters_of(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters())


def noise_head(parameters: int, classes: int) -> NoiseHead:
    """The widest network whose number of parameters is within 5 % of ``parameters``, by its hidden units.

    Raises:
        ValueError: there is none: so few parameters make no network.
    """
    for width in range(64, 0, -1):
        smallest = parameters_of(NoiseHead(width, 1, classes))
        per_unit = width * _STAGES[-1] + 1 + classes
        hidden = 1 + round((parameters - smallest) / per_unit)
        # a third of the parameters for what classifies, as many for each of the two networks as can be
        if hidden >= 8 and (parameters - smallest) >= parameters // 4:
            found = NoiseHead(width, hidden, classes)
            if abs(parameters_of(found) - parameters) <= _MOST_OFF * parameters:
                return found
    raise ValueError(f"noise_head: {parameters} parameters for {classes} classes; more hidden units are needed")


def train_on_prompts(
    features: Tensor,
    labels: Tensor,
    train: Sequence[int],
    held_out: Sequence[int],
    classes: int,
    budget: Budget,
    seed: int,
) -> Scored:
    """Train a :class:`PromptHead` and score what is held out.

    Args:
        features: (N, D), standardised here by the training rows.
        labels: (N,) class numbers.
        train: rows to train on.
        held_out: rows to score.
        classes: how many there are.
        budget: steps and sizes.
        seed: of initial weights, dropout and batches.
    """
    std, mean = torch.std_mean(features[list(train)].double(), dim=0, correction=0)
    x = ((features - mean) / std.clamp(min=1e-6)).float().clamp(-10, 10)
    return _trained(
        lambda: PromptHead(features.shape[1], budget.hidden, classes),
        lambda rows, stream: x[rows],
        labels,
        (list(train), list(held_out)),
        budget,
        seed,
        Precision(torch.device("cpu"), torch.float32),
    )


def train_on_noise(
    noise: Tensor,
    labels: Tensor,
    train: Sequence[int],
    held_out: Sequence[int],
    classes: int,
    budget: Budget,
    seed: int,
    parameters: int,
    precision: Precision,
) -> Scored:
    """Train a :class:`NoiseHead` of as many ``parameters`` on random windows of half the side, and score whole samples.

    Args:
        noise: (N, 3, H, W), grey levels of 255 (float16 holds those of 8-bit images exactly).
        labels: (N,) class numbers.
        train: rows to train on.
        held_out: rows to score.
        classes: how many there are.
        budget: steps and batch, as for the prompts.
        seed: of initial weights, dropout, batches and windows.
        parameters: of the network on prompts.
        precision: where and how it is computed.
    """
    scale = float(noise[list(train)].double().std()) or 1.0
    side = noise.shape[-1] // 2

    def inputs(rows: list[int], stream: torch.Generator | None) -> Tensor:
        x = noise[rows].float() / scale
        if stream is None:
            return x
        # even corners, no flips: the period of demosaicing keeps its phase and can be learned
        y, left = (2 * int(torch.randint((length - side) // 2 + 1, (), generator=stream)) for length in x.shape[-2:])
        return x[:, :, y : y + side, left : left + side]

    return _trained(
        lambda: noise_head(parameters, classes), inputs, labels, (list(train), list(held_out)), budget, seed, precision
    )


def _trained(
    build: Callable[[], nn.Module],
    inputs: Callable[[list[int], torch.Generator | None], Tensor],
    labels: Tensor,
    sides: tuple[list[int], list[int]],
    budget: Budget,
    seed: int,
    precision: Precision,
) -> Scored:
    train, held_out = sides
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("metadata weights", seed))
        network = build().to(precision.device)
        optimiser = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / budget.steps))
        stream = generator("metadata batches", seed)
        order: list[int] = []
        network.train()
        for _ in range(budget.steps):
            while len(order) < budget.batch:
                order += torch.randperm(len(train), generator=stream).tolist()
            rows = [train[k] for k in order[: budget.batch]]
            order = order[budget.batch :]
            logits = network(inputs(rows, stream).to(precision.device)).float()
            loss = F.cross_entropy(logits, labels[rows].to(precision.device), label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        chunks = [held_out[k : k + budget.batch] for k in range(0, len(held_out), budget.batch)]
        scores = [network(inputs(rows, None).to(precision.device)).float().cpu() for rows in chunks]
    return Scored(torch.cat(scores), labels[held_out])


def _rate(done: float) -> float:
    """Factor of the learning rate: a linear rise, then half a cosine."""
    if done < _WARM_UP:
        return max(done, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def top_accuracy(scored: Scored, top: int = 1, allowed: Tensor | None = None) -> float:
    """Share of samples whose class is among the ``top`` of the largest logits.

    ``allowed`` (N, K) bool: classes that a sample can be taken for.
    """
    logits = scored.logits if allowed is None else scored.logits.masked_fill(~allowed, -math.inf)
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return float((best == scored.labels[:, None]).any(dim=1).double().mean())


def balanced_accuracy(scored: Scored) -> float:
    """Mean over the classes that are held out of the share of their samples that is named rightly."""
    right = (scored.logits.argmax(dim=1) == scored.labels).double()
    return float(torch.stack([right[scored.labels == k].mean() for k in scored.labels.unique()]).mean())


def confusion(scored: Scored, classes: int) -> Tensor:
    """Counts (K, K), whole numbers: rows are the true classes, columns what they were taken for."""
    locations = scored.labels * classes + scored.logits.argmax(dim=1)
    return torch.bincount(locations, minlength=classes**2).reshape(classes, classes)
