"""Throughput of the model and of NAFlow's published architecture, measured on one device in one run."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pngmodel.baselines.naflow import NAFlow, NAFlowConfig, NAFlowGenerator
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator
from tasks.datasets.reference_pairs import SHIPPED, open_references
from tasks.models.generators import load_generator, model_digest
from tasks.runtime.provenance import commit, content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import recorded

SIDES = (256, 512)


def _seconds(generator: NoisyImageGenerator, noisy: Tensor, clean: Tensor, repeats: int) -> float:
    """Duration of the fastest of ``repeats`` runs, because disturbances only make runs slower."""
    prompts = generator.extract(noisy, clean)
    times = []
    for seed in range(repeats + 1):  # the first run is a warm-up
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        generator.sample(clean[None], [prompts], [seed])[0].cpu()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def measure_speed(model: str, device: str, repeats: int, location: str) -> dict[str, Any]:
    """Measure images per second by generator and image side.

    Args:
        model: Model bundle.
        device: cpu, cuda or cuda:N.
        repeats: Number of timed runs; the fastest counts.
        location: File or URL of the record; an existing record of the same inputs is returned.
    """
    digest = model_digest(model)

    def make() -> dict[str, Any]:
        noisy, clean = (to_unit(image)[0][0] for image in open_references(SHIPPED).read(0))
        generators = {
            "png": load_generator(model, device, digest),
            "naflow": NAFlowGenerator(NAFlow(NAFlowConfig()), device=device),
        }
        rates: dict[str, dict[str, float]] = {}
        for name, generator in generators.items():
            for side in SIDES:
                times = side // 256
                large = [image.repeat(1, times, times) for image in (noisy, clean)]
                rates.setdefault(name, {})[str(side)] = 1 / _seconds(generator, large[0], large[1], repeats)
        threads = torch.get_num_threads()
        return {"images_per_second": rates, "device": device_name(device), "threads": threads, "commit": commit()}

    facts = ["speed", digest, device_name(device), repeats, torch.get_num_threads(), evaluation_version()]
    return recorded(location, content_key(facts), make)


task_measure_speed = step("measure_speed")(measure_speed)
