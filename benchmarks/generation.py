"""Speed of generation: pairs per second of the shipped model beside the baselines, as ratios within one run.

.venv/bin/python benchmarks/generation.py
"""

from __future__ import annotations

import time

import torch

from pngmodel import NoiseGenerator
from pngmodel.baselines import BASELINES
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator
from tasks.provenance import commit, device_name
from tasks.sources import SHIPPED, open_references

_REPEATS = 5


def seconds_per_image(generator: NoisyImageGenerator, noisy: torch.Tensor, clean: torch.Tensor) -> tuple[float, float]:
    """Best of some repeats: (extraction of prompts, generation) of one image."""
    extraction, generation = [], []
    for repeat in range(_REPEATS):
        started = time.perf_counter()
        prompts = generator.extract(noisy, clean)
        middle = time.perf_counter()
        generator.sample(clean[None], [prompts], [repeat])
        extraction.append(middle - started)
        generation.append(time.perf_counter() - middle)
    return min(extraction), min(generation)


def main() -> None:
    noisy, clean = (to_unit(image)[0][0] for image in open_references(SHIPPED).read(0))
    generators: dict[str, NoisyImageGenerator] = {"png (shipped)": NoiseGenerator.from_pretrained()}
    generators |= {name: make() for name, make in BASELINES.items()}
    print(f"{device_name('cpu')}, code {commit()}, one 256 x 256 RGB image, batch 1")
    print(f"{'generator':30} {'extract ms':>10} {'generate ms':>11} {'images/s':>9} {'x awgn':>7}")
    rows = {name: seconds_per_image(generator, noisy, clean) for name, generator in generators.items()}
    for name, (extract, generate) in rows.items():
        ratio = generate / rows["awgn"][1]
        print(f"{name:30} {1e3 * extract:10.1f} {1e3 * generate:11.1f} {1 / (extract + generate):9.2f} {ratio:7.1f}")


if __name__ == "__main__":
    main()
