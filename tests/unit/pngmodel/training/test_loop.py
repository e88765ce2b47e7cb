"""The training loop: a resumed run equals an uninterrupted one, and nothing wrong goes on in silence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.errors import NonFiniteError, UserError
from pngmodel.seeds import generator
from pngmodel.training import checkpoints
from pngmodel.training.loop import Machine, Outcome, Progress, ema_decay, learning_rate, run_stage
from pngmodel.training.objective import Pictures
from pngmodel.training.samples import BatchNumbers, NoiseBatch
from pngmodel.training.settings import StageSettings


class InterruptionError(Exception):
    """Stands for a kill."""


class ToySamples:
    """Points by number."""

    def __getitems__(self, numbers: Sequence[int]) -> NoiseBatch:
        x = torch.stack([torch.randn(4, generator=generator("toy", n)) for n in numbers])
        return NoiseBatch(x, x[:, :2].sin(), x, torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        return f"points {numbers[0]}.."


class Toy(nn.Module):
    """A regression with dropout: its path depends on batches, dropout masks and the optimiser's state."""

    name = "toy"

    def __init__(
        self,
        stop_at: int | None = None,
        spoil: Callable[[Tensor, int], Tensor] = lambda loss, step: loss,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 2))
        self.net[0].bias.requires_grad_(False)  # type: ignore[index]
        self._stop_at, self._spoil = stop_at, spoil
        self.steps: list[int] = []
        self.compiled = 0

    def forward(
        self, noise: Tensor, clean: Tensor, reference: Tensor, numbers: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if step == self._stop_at:
            raise InterruptionError
        self.steps.append(step)
        loss = F.mse_loss(self.net(noise), clean)
        return self._spoil(loss, step), {"double": 2 * loss.detach()}

    def pictures(self, batch: NoiseBatch) -> Pictures:
        assert not self.training
        shown = self.net(batch.noise)[:, :1, None, None].expand(-1, 3, 8, 8)
        return Pictures({"real": shown, "drawn": shown + 1}, {"generated_std_ratio": 1.0})

    def compile(self) -> None:  # type: ignore[override]
        self.compiled += 1


def run(
    toy: Toy,
    settings: StageSettings,
    folder: Path,
    identity: str = "i",
    report: Callable[[Progress], None] = lambda progress: None,
    **machine: Any,
) -> Outcome:
    return run_stage(toy, ToySamples(), settings, folder, identity=identity, machine=Machine(**machine), report=report)


def settings(**changes: object) -> StageSettings:
    values = {"steps": 24, "batch": 16, "crop": 16, "learning_rate": 1e-2, "checkpoint_every": 5, "log_every": 2}
    return StageSettings(**(values | changes))  # type: ignore[arg-type]


def weights(toy: Toy) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in toy.net.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def rows(folder: Path) -> list[dict]:
    """Logged rows without what a clock decides."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in found]


@pytest.mark.parametrize("optimiser", ["adam", "radam"])
@pytest.mark.parametrize("final", [None, 1e-4])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, optimiser: str, final: float | None) -> None:
    chosen = settings(optimiser=optimiser, final_learning_rate=final)
    whole = Toy()
    assert run(whole, chosen, tmp_path / "whole", identity="i").finished

    for stop in (3, 13, 22):  # before any checkpoint, between two, after the last but one
        with pytest.raises(InterruptionError):
            run(Toy(stop_at=stop), chosen, tmp_path / "parts", identity="i")
    resumed = Toy()
    outcome = run(resumed, chosen, tmp_path / "parts", identity="i")
    assert resumed.steps == [20, 21, 22, 23]
    assert (outcome.step, outcome.finished) == (24, True)
    assert equal(weights(resumed), weights(whole))
    raw = [checkpoints.newest(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    assert equal(raw[0][1], raw[1][1])
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_time_budget_stops_after_a_checkpoint_and_the_rerun_ends_equal(tmp_path: Path) -> None:
    whole = Toy()
    run(whole, settings(), tmp_path / "whole", identity="i")
    for attempt in range(30):
        part = Toy()
        outcome = run(part, settings(), tmp_path / "parts", identity="i", max_minutes=1e-9)
        assert len(part.steps) <= 1
        assert outcome.step == attempt + 1
        if outcome.finished:
            break
    assert equal(weights(part), weights(whole))
    assert not part.net.training


def test_random_state_outside_plays_no_part(tmp_path: Path) -> None:
    first, second = Toy(), Toy()
    torch.manual_seed(5)
    run(first, settings(), tmp_path / "first", identity="i")
    torch.manual_seed(6)
    run(second, settings(), tmp_path / "second", identity="i")
    assert equal(weights(first), weights(second))
    other = Toy()
    run(other, settings(seed=1), tmp_path / "other", identity="i")
    assert not equal(weights(first), weights(other))


def test_training_lowers_the_loss_and_leaves_frozen_parameters(tmp_path: Path) -> None:
    toy = Toy()
    before = weights(toy)
    run(toy, settings(steps=300, gradient_clip=1.0), tmp_path, identity="i")
    losses = [row["loss"] for row in rows(tmp_path)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert torch.equal(toy.net.state_dict()["0.bias"], before["0.bias"])


def test_the_module_ends_with_the_moving_average(tmp_path: Path) -> None:
    toy = Toy()
    trajectory: list[Tensor] = []

    def spoil(loss: Tensor, step: int) -> Tensor:
        trajectory.append(toy.net[0].weight.detach().clone())  # type: ignore[index]
        return loss

    toy._spoil = spoil
    run(toy, settings(ema=0.6), tmp_path, identity="i")
    _, tensors = checkpoints.newest(tmp_path / "checkpoints")
    trajectory.append(tensors["parameter.net.0.weight"])
    average = trajectory[0].double()
    for k, value in enumerate(trajectory[1:]):
        decay = min(0.6, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * value.double()
    torch.testing.assert_close(toy.net[0].weight.detach().double(), average, atol=1e-6, rtol=1e-5)  # type: ignore[index]
    assert not torch.equal(toy.net[0].weight, trajectory[-1])  # type: ignore[index]


def test_a_finished_stage_replays_without_training(tmp_path: Path) -> None:
    first, again = Toy(), Toy()
    done = run(first, settings(), tmp_path, identity="i")
    before = rows(tmp_path)
    outcome = run(again, settings(), tmp_path, identity="i")
    assert again.steps == []
    assert outcome == done
    assert equal(weights(again), weights(first))
    assert rows(tmp_path) == before


def test_another_identity_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    run(Toy(), settings(), tmp_path, identity="first-identity")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"another configuration or data .*first-ident.*second-ident"):
        run(Toy(), settings(), tmp_path, identity="second-identity")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_names_the_step_and_keeps_the_last_checkpoint(tmp_path: Path, value: float) -> None:
    broken = Toy(spoil=lambda loss, step: loss * value if step == 12 else loss)
    message = r"toy: loss (nan|inf), gradient norm nan at step 12, samples 192 to 207 \(points 192\.\.\); .*checkpoints"
    with pytest.raises(NonFiniteError, match=message):
        run(broken, settings(), tmp_path, identity="i")
    state, tensors = checkpoints.newest(tmp_path / "checkpoints")
    assert state["step"] == 10
    assert all(bool(torch.isfinite(v).all()) for v in tensors.values())
    # Repaired, it goes on from there.
    whole, repaired = Toy(), Toy()
    run(whole, settings(), tmp_path / "whole", identity="i")
    run(repaired, settings(), tmp_path, identity="i")
    assert repaired.steps[0] == 10
    assert equal(weights(repaired), weights(whole))


def test_a_non_finite_gradient_under_a_finite_loss_is_named_as_such(tmp_path: Path) -> None:
    # sqrt(0) has value 0 and an infinite slope.
    broken = Toy(spoil=lambda loss, step: loss + (loss * 0).sqrt() if step == 7 else loss)
    with pytest.raises(NonFiniteError, match="gradient norm nan at step 7"):
        run(broken, settings(), tmp_path, identity="i")
    assert all(bool(torch.isfinite(p).all()) for p in broken.net.parameters())


@pytest.mark.parametrize("damage", ["flip", "truncate", "no state", "empty state", "no tensors"])
def test_a_damaged_newest_checkpoint_falls_back(tmp_path: Path, damage: str) -> None:
    whole = Toy()
    run(whole, settings(), tmp_path / "whole", identity="i")
    with pytest.raises(InterruptionError):
        run(Toy(stop_at=13), settings(), tmp_path / "parts", identity="i")
    newest = sorted((tmp_path / "parts" / "checkpoints").iterdir())[-1]
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    content = bytearray(tensors.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
        tensors.write_bytes(bytes(content))
    elif damage == "truncate":
        tensors.write_bytes(bytes(content[:100]))
    elif damage == "no state":
        state.unlink()
    elif damage == "empty state":
        state.write_text("")
    else:
        tensors.unlink()
    resumed = Toy()
    run(resumed, settings(), tmp_path / "parts", identity="i")
    assert resumed.steps[0] == 5
    assert equal(weights(resumed), weights(whole))
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_only_the_newest_two_checkpoints_and_no_leftovers_stay(tmp_path: Path) -> None:
    stale = tmp_path / "checkpoints" / ".step-00000003.999"
    stale.mkdir(parents=True)
    run(Toy(), settings(), tmp_path, identity="i")
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000020", "step-00000024"]


def test_as_many_checkpoints_stay_as_wanted(tmp_path: Path) -> None:
    run(Toy(), settings(keep_checkpoints=3), tmp_path)
    assert [p.name[-2:] for p in sorted((tmp_path / "checkpoints").iterdir())] == ["15", "20", "24"]


def test_accumulated_parts_are_the_same_step(tmp_path: Path) -> None:
    whole, parts = Toy(dropout=0.0), Toy(dropout=0.0)
    run(whole, settings(), tmp_path / "whole")
    run(parts, settings(gradient_accumulation_steps=4), tmp_path / "parts")
    assert len(parts.steps) == 4 * len(whole.steps)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="16 is not divisible by 1 devices times gradient_accumulation_steps"):
        run(Toy(), settings(gradient_accumulation_steps=3), tmp_path / "odd")


def test_every_number_is_used_once_by_one_device() -> None:
    chosen = settings(steps=5, batch=12, gradient_accumulation_steps=2)
    dealt = [list(BatchNumbers(chosen, start=2, rank=rank, devices=3)) for rank in range(3)]
    assert all(len(numbers) == 6 and all(len(part) == 2 for part in numbers) for numbers in dealt)
    assert sorted(n for numbers in dealt for part in numbers for n in part) == list(range(24, 60))


def test_the_network_is_compiled_when_asked(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, settings(steps=1), tmp_path / "a")
    run(toy, settings(steps=1, compile=True), tmp_path / "b")
    assert toy.compiled == 1


def test_tensorboard_has_curves_and_pictures_without_doubles(tmp_path: Path) -> None:
    chosen = settings(pictures_every=6)
    with pytest.raises(InterruptionError):
        run(Toy(stop_at=13), chosen, tmp_path)
    toy = Toy()
    run(toy, chosen, tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "gradient_norm", "learning_rate", "generated_std_ratio"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("loss")] == list(range(2, 25, 2))
    assert [event.step for event in found.Images("noise")] == [6, 12, 18, 24]
    assert (found.Images("noise")[0].height, found.Images("noise")[0].width) == (16, 64)


def test_metrics_have_every_logged_step_once(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        run(Toy(stop_at=9), settings(), tmp_path, identity="i")
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6, 8]  # 6 and 8 lie after the checkpoint of step 5
    run(Toy(), settings(steps=25), tmp_path, identity="i")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [*range(2, 25, 2), 25]
    assert all(math.isfinite(row["gradient_norm"]) and row["double"] == pytest.approx(2 * row["loss"]) for row in found)


def test_a_torn_last_row_of_the_metrics_does_not_stop_a_resume(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        run(Toy(stop_at=7), settings(), tmp_path, identity="i")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    run(Toy(), settings(), tmp_path, identity="i")
    assert [row["step"] for row in rows(tmp_path)] == list(range(2, 25, 2))


def test_progress_is_reported_each_step(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(Toy(), settings(), tmp_path, identity="i", report=lambda p: seen.append((p.stage, p.step, p.steps)))
    assert seen == [("toy", k, 24) for k in range(1, 25)]


def test_learning_rate_is_constant_or_half_a_cosine() -> None:
    assert learning_rate(settings(), 0) == learning_rate(settings(), 23) == 1e-2
    falling = settings(final_learning_rate=1e-4)
    assert learning_rate(falling, 0) == pytest.approx(1e-2)
    assert learning_rate(falling, 12) == pytest.approx((1e-2 + 1e-4) / 2)
    assert learning_rate(falling, 24) == pytest.approx(1e-4)


def test_ema_warms_up_to_its_decay() -> None:
    chosen = settings(ema=0.999)
    assert ema_decay(chosen, 0) == pytest.approx(0.1)
    assert ema_decay(chosen, 90) == pytest.approx(0.91)
    assert ema_decay(chosen, 10**6) == 0.999


def test_parts_of_an_objective_learn_at_their_own_pace(tmp_path: Path) -> None:
    chosen = settings(steps=1, optimiser="adam", learning_rate=0.01, final_learning_rate=None, gradient_clip=None)
    moved = {}
    for pace in (1.0, 0.1):
        toy = Toy(dropout=0.0)
        toy.lr_multipliers = {"net.3.": pace}  # type: ignore[attr-defined]
        before = {name: p.detach().clone() for name, p in toy.named_parameters()}
        run_stage(toy, ToySamples(), chosen, tmp_path / str(pace), identity="x")
        moved[pace] = {name: (p - before[name]).abs().max().item() for name, p in toy.named_parameters()}
    assert moved[0.1]["net.0.weight"] == moved[1.0]["net.0.weight"] > 0
    assert moved[0.1]["net.3.weight"] == pytest.approx(0.1 * moved[1.0]["net.3.weight"], rel=1e-3)
