"""What the benchmarks measure time with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def fewest_seconds(action: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Fewest seconds of some repeats, after one that is not counted; waits for the device."""
    return min([once(action, device) for _ in range(repeats + 1)][1:])


def interleaved_seconds(
    actions: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every action in each of some rounds, after one that is not counted.

    A round runs all of them in turn, so that what slows the machine down for a while slows each down.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            seconds = once(action, device)
            if turn:
                found[name].append(seconds)
    return found


def once(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call; waits for the device."""
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
