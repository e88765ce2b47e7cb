"""What the benchmarks measure time with."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def fewest_seconds(action: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Fewest seconds of some repeats, after one that is not counted; waits for the device."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])
