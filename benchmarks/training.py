"""Does the loader keep up with the training? Samples per second of each alone, as ratios within one run.

.venv/bin/python -m benchmarks.training configs/models/small.yaml [--device cuda] [--workers 4]
Also the local correlation's forward against one 3 x 3 convolution of 48 channels, at 256 x 256.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.timing import fewest_seconds
from pngmodel.network.model import Precision
from pngmodel.statistics.correlation import local_correlation
from pngmodel.training.pdit import TransformerObjective
from pngmodel.training.samples import BatchNumbers, load_batches
from tasks.runtime.configuration import load_yaml
from tasks.runtime.provenance import commit, device_name
from tasks.training.noise_model import NoiseModelTraining, TrainingConfig

_BATCHES = 32


def loader_rate(run: NoiseModelTraining, workers: int) -> float:
    """Samples per second of the loader alone, workers warm."""
    batches = load_batches(run.pdit_samples, BatchNumbers(run.config.pdit, start=0), workers)
    for _ in range(4 * workers + 1):  # what was made ahead does not count
        next(batches)
    started = time.perf_counter()
    made = sum(len(batch) for batch in islice(batches, _BATCHES))
    return made / (time.perf_counter() - started)


def step_rate(run: NoiseModelTraining) -> float:
    """Samples per second of forward and backward alone."""
    device = run.precision.device
    objective = TransformerObjective(run.model, run.config.pdit, run.precision).to(device)
    objective = objective.to(memory_format=torch.channels_last)
    batch = run.pdit_samples.__getitems__(range(run.config.pdit.batch)).to(device)

    def step() -> None:
        objective.zero_grad()
        objective(batch.noise, batch.clean, batch.reference, batch.numbers, 0)[0].backward()

    return len(batch) / fewest_seconds(step, device)


def correlation_share(precision: Precision) -> tuple[float, float]:
    """Seconds of 25 local correlations, and of one convolution of 48 channels in the precision of training."""
    device = precision.device
    noise = torch.randn(1, 3, 256, 256, device=device)
    convolution = nn.Conv2d(48, 48, 3, padding=1).to(device, memory_format=torch.channels_last)
    features = torch.randn(1, 48, 256, 256, device=device).to(memory_format=torch.channels_last)
    with torch.no_grad():
        correlation = fewest_seconds(lambda: local_correlation(noise), device, 20)
        with precision.autocast():
            return correlation, fewest_seconds(lambda: convolution(features), device, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = Precision.best(options.device)
    print(f"{device_name(options.device)}, {options.threads} threads, {precision.dtype}, code {commit()}")
    plain, fast = correlation_share(Precision(precision.device, torch.float32)), correlation_share(precision)
    print(f"local correlation over a convolution: float32 {plain[0] / plain[1]:.2f}, training {fast[0] / fast[1]:.2f}")
    with TemporaryDirectory() as folder:
        run = NoiseModelTraining(load_yaml(options.config, TrainingConfig), Path(folder), device=options.device)
        need = step_rate(run)
        print(f"training step needs {need:.1f} samples/s")
        for workers in sorted({0, options.workers}):
            rate = loader_rate(run, workers)
            print(f"loader, {workers} processes: {rate:.1f} samples/s, {rate / need:.2f} of the need")


if __name__ == "__main__":
    main()
