"""Training loop with numbered samples, EMA, checkpoints, detection of non-finite values, and several devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pngmodel.errors import NonFiniteError, UserError
from pngmodel.seeds import derive_seed
from pngmodel.training import checkpoints
from pngmodel.training.objective import Objective, as_module, lr_multipliers_of
from pngmodel.training.samples import AnyBatch, BatchNumbers, Samples, load_batches
from pngmodel.training.settings import StageSettings
from pngmodel.training.tensorboard import TensorBoardLogger

_LOGGED_SAMPLES = 8


@dataclass(frozen=True)
class Progress:
    """Progress of a running stage."""

    stage: str
    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """Result of a run of the loop."""

    step: int
    steps: int
    seconds: float  # of training, over all resumed runs

    @property
    def finished(self) -> bool:
        """Whether all steps are done; False if the time limit was reached, then run again to resume."""
        return self.step >= self.steps


@dataclass(frozen=True)
class Machine:
    """Devices and workers of a stage. Samples do not depend on them; dropout masks and rounding errors do."""

    fabric: Fabric = field(default_factory=lambda: Fabric(accelerator="cpu", devices=1))
    """Must be launched if it has several processes."""
    workers: int = 0
    """Processes per device that prepare batches in advance."""
    max_minutes: float | None = None
    """Time limit in minutes; the stage stops with a checkpoint."""


@dataclass
class _State:
    """State of a stage, stored in checkpoints."""

    parameters: dict[str, nn.Parameter]
    ema: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


_OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}


def _optimiser(
    settings: StageSettings, parameters: dict[str, nn.Parameter], lr_multipliers: Mapping[str, float]
) -> torch.optim.Optimizer:
    """One optimiser over all parameters. ``lr_multipliers`` scales learning rates by prefix of parameter names."""
    kind = _OPTIMISERS[settings.optimiser]
    options = {"lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        multiplier = next((factor for prefix, factor in lr_multipliers.items() if name.startswith(prefix)), 1.0)
        groups.setdefault(multiplier, []).append(parameter)
    return kind([{"params": members, "lr_multiplier": factor} for factor, members in groups.items()], **options)


def learning_rate(settings: StageSettings, step: int) -> float:
    """Return the learning rate at a step: constant, or a cosine decay to ``final_learning_rate``."""
    if settings.final_learning_rate is None:
        return settings.learning_rate
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.final_learning_rate + (settings.learning_rate - settings.final_learning_rate) * cosine


def ema_decay(settings: StageSettings, step: int) -> float:
    """Return the EMA decay at a step: (1 + k) / (10 + k), capped at ``ema``, so that short runs average few steps."""
    return min(settings.ema, (1 + step) / (10 + step))


def run_stage(
    objective: Objective[AnyBatch],
    samples: Samples[AnyBatch],
    settings: StageSettings,
    folder: Path,
    *,
    identity: str,
    machine: Machine | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train an objective for ``settings.steps`` steps, resuming from the last checkpoint in ``folder``.

    At the end, or when the time limit is reached, the module has the EMA weights.

    Args:
        objective: Module with the loss; its trainable parameters are optimised.
        samples: Training samples.
        settings: Settings of the stage.
        folder: Local folder of checkpoints and logs.
        identity: Digest of configuration and data; checkpoints with another identity are rejected.
        machine: Devices, workers and time limit.
        report: Called with the progress of every step.

    Raises:
        NonFiniteError: The loss or a gradient is not finite; names step, images and the last good checkpoint.
        UserError: The folder has checkpoints of another configuration, or the batch is not divisible.
    """
    return _Stage(objective, samples, settings, folder, identity, machine or Machine(), report).run()


class _Stage(Generic[AnyBatch]):
    def __init__(
        self,
        objective: Objective[AnyBatch],
        samples: Samples[AnyBatch],
        settings: StageSettings,
        folder: Path,
        identity: str,
        machine: Machine,
        report: Callable[[Progress], None],
    ) -> None:
        self._objective, self._samples, self._settings, self._report = objective, samples, settings, report
        self._identity, self._machine, self._fabric = identity, machine, machine.fabric
        self._folder, self._checkpoints = folder, folder / "checkpoints"
        self._chief = machine.fabric.global_rank == 0
        module = as_module(objective).to(machine.fabric.device)
        # Convolutions are twice as fast in this memory format, on CPUs and on tensor cores.
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = _trainable(module)
        ema = {name: p.detach().clone() for name, p in parameters.items()}
        self._state = _State(parameters, ema, _optimiser(settings, parameters, lr_multipliers_of(objective)))
        self._module = module

    def run(self) -> Outcome:
        """See :func:`run_stage`."""
        settings, fabric, state = self._settings, self._fabric, self._state
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error}); choose another output") from error
        self._resume()
        numbers = BatchNumbers(settings, start=state.step, rank=fabric.global_rank, devices=fabric.world_size)
        if settings.compile:
            self._objective.compile()
        module, optimiser = fabric.setup(self._module, state.optimiser)
        logger = TensorBoardLogger(self._folder, state.step) if self._chief else None
        started = mark = time.monotonic()
        self._module.train()
        batches = (
            load_batches(self._samples, numbers, self._machine.workers) if state.step < settings.steps else iter(())
        )
        while state.step < settings.steps:
            step = state.step
            loss, norm, metrics = self._step(module, optimiser, batches, step)
            self._average(ema_decay(settings, step))
            state.step = step = step + 1
            now = time.monotonic()
            last = step == settings.steps
            if logger is not None and (step % settings.log_every == 0 or last):
                row = {"loss": loss, "gradient_norm": norm, "learning_rate": learning_rate(settings, step - 1)}
                rate = {"samples_per_second": settings.batch * (step - self._first) / (now - started)}
                logger.write(step, row | rate | {name: float(value) for name, value in metrics.items()})
            if logger is not None and (step % settings.pictures_every == 0 or last):
                self._log_pictures(logger)
            self._report(Progress(self._objective.name, step, settings.steps, loss, now - started))
            out_of_time = self._out_of_time(now - started)
            if step % settings.checkpoint_every == 0 or last or out_of_time:
                state.seconds, mark = state.seconds + now - mark, now
                self._save()
            if out_of_time:
                break
        if logger is not None:
            logger.close()
        with torch.no_grad():
            for name, p in state.parameters.items():
                p.copy_(state.ema[name])
        self._module.eval()
        return Outcome(state.step, settings.steps, state.seconds)

    def _step(
        self, module: Any, optimiser: torch.optim.Optimizer, batches: Iterator[AnyBatch], step: int
    ) -> tuple[float, float, dict[str, Tensor]]:
        """Run an optimiser step; return mean loss, gradient norm before clipping, metrics of the last micro-batch."""
        settings, fabric = self._settings, self._fabric
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step) * group["lr_multiplier"]
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=fabric.device)
        metrics: dict[str, Tensor] = {}
        for part in range(settings.gradient_accumulation_steps):
            batch = next(batches).to(fabric.device)
            torch.manual_seed(derive_seed("dropout", settings.seed, step, part, fabric.global_rank))
            # Synchronise gradients between devices once per step, not once per micro-batch.
            with fabric.no_backward_sync(module, enabled=part + 1 < settings.gradient_accumulation_steps):
                loss, metrics = module(*batch.tensors(), step)
                loss = loss / settings.gradient_accumulation_steps
                total += loss.detach()
                # Run backward even for a non-finite loss: the other devices wait for the gradient.
                fabric.backward(loss)
        value = float(fabric.all_reduce(total, reduce_op="mean"))  # type: ignore[arg-type]
        norm = math.nan
        if math.isfinite(value):
            norm = float(nn.utils.clip_grad_norm_(self._state.parameters.values(), settings.gradient_clip or math.inf))
        if not (math.isfinite(value) and math.isfinite(norm)):
            seen = range(step * settings.batch, (step + 1) * settings.batch)  # of all devices
            raise NonFiniteError(
                f"{self._objective.name}: loss {value}, gradient norm {norm} at step {step}, samples {seen[0]} to "
                f"{seen[-1]} ({self._samples.describe(seen)}); the last good checkpoint is in {self._checkpoints}; "
                "check these images, or train again with a smaller learning_rate or gradient_clip"
            )
        optimiser.step()
        return value, norm, metrics

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        ema = [self._state.ema[name] for name in self._state.parameters]
        torch._foreach_lerp_(ema, list(self._state.parameters.values()), 1 - decay)

    def _out_of_time(self, seconds: float) -> bool:
        limit = self._machine.max_minutes
        if limit is None:
            return False
        # Use the clock of rank 0 on all devices, so that they stop at the same step.
        return bool(self._fabric.broadcast(seconds > 60 * limit))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Use the EMA weights and evaluation mode in the block."""
        state = self._state
        current = {name: p.detach().clone() for name, p in state.parameters.items()}
        self._module.eval()
        with torch.no_grad():
            for name, p in state.parameters.items():
                p.copy_(state.ema[name])
            try:
                yield
            finally:
                for name, p in state.parameters.items():
                    p.copy_(current[name])
                self._module.train()

    def _log_pictures(self, logger: TensorBoardLogger) -> None:
        batch = self._samples.__getitems__(range(_LOGGED_SAMPLES)).to(self._fabric.device)
        with self._averaged():
            pictures = self._objective.pictures(batch)
        logger.show(self._state.step, pictures)

    def _save(self) -> None:
        state = self._state
        if self._chief:
            tensors: dict[str, Tensor] = {f"parameter.{k}": v for k, v in state.parameters.items()}
            tensors |= {f"ema.{k}": v for k, v in state.ema.items()}
            tensors |= {f"buffer.{k}": v for k, v in self._buffers().items()}
            tensors |= checkpoints.flatten_optimiser(state.optimiser)
            record = {"identity": self._identity, "seconds": state.seconds}
            checkpoints.save(self._checkpoints, state.step, tensors, record, keep=self._settings.keep_checkpoints)
        self._fabric.barrier()

    def _buffers(self) -> dict[str, Tensor]:
        """Persistent buffers, e.g. running statistics of normalisation layers."""
        persistent = self._module.state_dict()
        return {name: buffer for name, buffer in self._module.named_buffers() if name in persistent}

    def _resume(self) -> None:
        found, state = checkpoints.newest(self._checkpoints), self._state
        if found is not None:
            record, tensors = found
            if record["identity"] != self._identity:
                raise UserError(
                    f"{self._checkpoints}: has checkpoints of another configuration or data "
                    f"({record['identity'][:12]}, this run is {self._identity[:12]}); choose another output or delete "
                    "the folder"
                )
            with torch.no_grad():
                for name, p in state.parameters.items():
                    p.copy_(tensors[f"parameter.{name}"])
                    state.ema[name].copy_(tensors[f"ema.{name}"])
                for name, buffer in self._buffers().items():
                    buffer.copy_(tensors[f"buffer.{name}"])
            checkpoints.restore_optimiser(state.optimiser, tensors)
            state.step, state.seconds = int(record["step"]), float(record["seconds"])
        self._first = state.step
