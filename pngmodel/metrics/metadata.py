"""Camera classification from frozen prompts, compared with a network of equal size on the noise itself.

Both networks are trained to predict the camera (or camera and ISO) and evaluated on held-out scenes. If prompts encode
the camera, they are easier to classify than noise (PNG, CVPR 2026, arXiv 2603.04870: 94.47 % against 75.80 %).
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
_STAGES = (1, 1, 2, 2, 4)  # relative widths of the convolutions of NoiseHead
_MAX_DEVIATION = 0.05  # relative difference of the numbers of parameters of both networks


@dataclass(frozen=True)
class Budget:
    """Training budget of both networks."""

    steps: int
    batch: int = 32
    hidden: int = 64
    """Hidden units of the network on prompts; determines the number of parameters of both networks."""
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Scored:
    """Held-out logits (N, K), float32, and true classes (N,)."""

    logits: Tensor
    labels: Tensor


class PromptHead(nn.Module):
    """Network that maps standardised prompt features (B, D) to logits (B, K)."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.layers(x)


class NoiseHead(nn.Module):
    """Network that maps noise (B, 3, H, W), H and W at least 32, to logits (B, K).

    Five convolutions of stride 2, a spatial mean, and :class:`PromptHead`. For its sizes see :func:`noise_head`.
    """

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
        """Return logits (B, K)."""
        return self.layers(self.features(x).mean(dim=(2, 3)))


def parameters_of(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())


def noise_head(parameters: int, classes: int) -> NoiseHead:
    """Build the widest network whose number of parameters is within 5 % of ``parameters``.

    Raises:
        ValueError: There is no such network, because ``parameters`` is too small.
    """
    for width in range(64, 0, -1):
        smallest = parameters_of(NoiseHead(width, 1, classes))
        per_unit = width * _STAGES[-1] + 1 + classes
        hidden = 1 + round((parameters - smallest) / per_unit)
        # at least a quarter of the parameters for the classifier after the convolutions
        if hidden >= 8 and (parameters - smallest) >= parameters // 4:
            found = NoiseHead(width, hidden, classes)
            if abs(parameters_of(found) - parameters) <= _MAX_DEVIATION * parameters:
                return found
    raise ValueError(f"noise_head: {parameters} parameters are too few for {classes} classes; use more hidden units")


def train_on_prompts(
    features: Tensor,
    labels: Tensor,
    train: Sequence[int],
    held_out: Sequence[int],
    classes: int,
    budget: Budget,
    seed: int,
) -> Scored:
    """Train a :class:`PromptHead` and evaluate it on the held-out rows.

    Args:
        features: Features (N, D); standardised with the statistics of the training rows.
        labels: Class indices (N,).
        train: Training rows.
        held_out: Test rows.
        classes: Number of classes.
        budget: Training budget.
        seed: Seed of initial weights, dropout and batches.
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
    """Train a :class:`NoiseHead` on random crops of half the side, and evaluate it on whole held-out samples.

    Args:
        noise: Noise (N, 3, H, W) in digital numbers; float16 represents that of 8-bit images exactly.
        labels: Class indices (N,).
        train: Training rows.
        held_out: Test rows.
        classes: Number of classes.
        budget: Training budget, as for the prompts.
        seed: Seed of initial weights, dropout, batches and crops.
        parameters: Number of parameters of the network on prompts.
        precision: Device and dtype of the network.
    """
    scale = float(noise[list(train)].double().std()) or 1.0
    side = noise.shape[-1] // 2

    def inputs(rows: list[int], stream: torch.Generator | None) -> Tensor:
        x = noise[rows].float() / scale
        if stream is None:
            return x
        # even corners and no flips, to keep the Bayer phase
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
    """Factor of the learning rate: linear warm-up, then cosine decay."""
    if done < _WARM_UP:
        return max(done, 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def top_accuracy(scored: Scored, top: int = 1, allowed: Tensor | None = None) -> float:
    """Return the share of samples whose class is among the ``top`` largest logits, in [0, 1].

    Args:
        scored: Logits and classes.
        top: Number of predictions.
        allowed: Classes (N, K) bool that may be predicted for each sample; default all.
    """
    logits = scored.logits if allowed is None else scored.logits.masked_fill(~allowed, -math.inf)
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return float((best == scored.labels[:, None]).any(dim=1).double().mean())


def balanced_accuracy(scored: Scored) -> float:
    """Return the accuracy per class, averaged over the classes of the held-out samples, in [0, 1]."""
    correct = (scored.logits.argmax(dim=1) == scored.labels).double()
    return float(torch.stack([correct[scored.labels == k].mean() for k in scored.labels.unique()]).mean())


def confusion(scored: Scored, classes: int) -> Tensor:
    """Return the confusion matrix of counts (K, K), int64: true classes in rows, predictions in columns."""
    index = scored.labels * classes + scored.logits.argmax(dim=1)
    return torch.bincount(index, minlength=classes**2).reshape(classes, classes)
