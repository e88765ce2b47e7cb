"""The one training loop: seekable batches, EMA, checkpoints, a guard against non-finite numbers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pngmodel.errors import NonFiniteError, UserError
from pngmodel.seeds import derive_seed
from pngmodel.training import checkpoints
from pngmodel.training.samples import Batch
from pngmodel.training.settings import StageSettings


class Objective(Protocol):
    """One stage: which module's parameters are trained, on which batches, by which loss."""

    name: str

    @property
    def module(self) -> nn.Module:
        """Whose trainable parameters are optimised."""
        ...

    def batch(self, step: int) -> Batch:
        """The step's batch, a pure function of the step."""

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and figures to log."""


@dataclass(frozen=True)
class Progress:
    """What a caller may show of a running stage."""

    stage: str
    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a run of the loop ended."""

    step: int
    steps: int
    seconds: float  # of training, over all resumed runs

    @property
    def finished(self) -> bool:
        """Whether all steps were done (False: the time budget ended first; run again to continue)."""
        return self.step >= self.steps


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _optimiser(settings: StageSettings, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimiser == "adam":
        return torch.optim.Adam(parameters.values(), lr=settings.learning_rate, betas=(0.5, 0.9))
    return torch.optim.RAdam(parameters.values(), lr=settings.learning_rate)


def learning_rate(settings: StageSettings, step: int) -> float:
    """Constant, or a cosine from ``learning_rate`` to ``final_learning_rate`` over the steps."""
    if settings.final_learning_rate is None:
        return settings.learning_rate
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.final_learning_rate + (settings.learning_rate - settings.final_learning_rate) * fall


def ema_decay(settings: StageSettings, step: int) -> float:
    """Warm-up (1 + k) / (10 + k) capped at ``ema``: short runs average over their last tenth."""
    return min(settings.ema, (1 + step) / (10 + step))


def run_stage(
    objective: Objective,
    settings: StageSettings,
    folder: Path,
    *,
    identity: str,
    max_minutes: float | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train until ``settings.steps``; a rerun with the same folder continues where the last one stopped.

    At the end (or when ``max_minutes`` ran out, after a checkpoint) the module holds the EMA weights.
    ``identity`` names configuration and data; a folder with another identity is refused.

    Raises:
        NonFiniteError: loss or gradient is not finite; names the step and the last good checkpoint.
        UserError: the folder belongs to another configuration.
    """
    module = objective.module
    parameters = _trainable(module)
    optimiser = _optimiser(settings, parameters)
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    checkpoint_folder = folder / "checkpoints"
    try:
        checkpoint_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); choose another output") from error
    step, seconds = _resume(checkpoint_folder, identity, parameters, ema, optimiser)
    log = _MetricsLog(folder / "metrics.jsonl", step)
    started = mark = time.monotonic()
    module.train()

    def save() -> None:
        nonlocal seconds, mark
        now = time.monotonic()
        seconds, mark = seconds + now - mark, now
        tensors = {f"parameter.{k}": v for k, v in parameters.items()} | {f"ema.{k}": v for k, v in ema.items()}
        tensors |= checkpoints.flatten_optimiser(optimiser)
        checkpoints.save(checkpoint_folder, step, tensors, {"identity": identity, "seconds": seconds})

    while step < settings.steps:
        torch.manual_seed(derive_seed("dropout", settings.seed, step))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimiser.zero_grad(set_to_none=True)
        loss, figures = objective.loss(objective.batch(step), step)
        value, norm = float(loss.detach()), math.nan
        if math.isfinite(value):
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(parameters.values(), settings.gradient_clip))
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NonFiniteError(
                f"{objective.name}: loss {value}, gradient norm {norm} at step {step} (its batch is a function of "
                f"seed {settings.seed} and this step); the last good checkpoint is in {checkpoint_folder}"
            )
        optimiser.step()
        decay = ema_decay(settings, step)
        with torch.no_grad():
            for name, p in parameters.items():
                ema[name].lerp_(p, 1 - decay)
        step += 1
        if step % settings.log_every == 0 or step == settings.steps:
            log.write({"step": step, "loss": value, "gradient_norm": norm, **figures})
        report(Progress(objective.name, step, settings.steps, value, time.monotonic() - started))
        out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
        if step % settings.checkpoint_every == 0 or step == settings.steps or out_of_time:
            save()
        if out_of_time:
            break
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])
    module.eval()
    return Outcome(step, settings.steps, seconds)


def _resume(
    folder: Path,
    identity: str,
    parameters: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> tuple[int, float]:
    found = checkpoints.newest(folder)
    if found is None:
        return 0, 0.0
    state, tensors = found
    if state["identity"] != identity:
        raise UserError(
            f"{folder}: holds checkpoints of another configuration or data ({state['identity'][:12]}, "
            f"this run is {identity[:12]}); choose another output or delete the folder"
        )
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"parameter.{name}"])
            ema[name].copy_(tensors[f"ema.{name}"])
    checkpoints.restore_optimiser(optimiser, tensors)
    return int(state["step"]), float(state["seconds"])


class _MetricsLog:
    """One JSON object per line; rows after the resumed step are dropped, so that the curve has no doubles."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._rows(path) if step and path.exists() else []
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
        self._path = path

    @staticmethod
    def _rows(path: Path) -> list[dict[str, Any]]:
        rows = []
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:  # a kill tore the last row
                break
        return rows

    def write(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
