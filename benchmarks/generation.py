"""Speed of generation, as ratios within one run: images per second, and the transformer against bare matrix products.

.venv/bin/python -m benchmarks.generation [--device cuda] [--preset paper] [--threads 1]

Prompt extraction counts: a reference is read for every image. FLOP/s are of the transformer's forward alone, over those
of one large square product in the same precision on the same device.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import fewest_seconds
from pngmodel import NoiseGenerator
from pngmodel.baselines import BASELINES
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.network.presets import DOWNSAMPLING, PRESETS
from tasks.datasets.reference_pairs import SHIPPED, open_references
from tasks.runtime.provenance import commit, device_name

_BATCHES = {"cpu": (1, 2), "cuda": (1, 4, 16, 64)}
_MATMUL_SIDE = 2048


def per_image(generator: NoisyImageGenerator, noisy: Tensor, clean: Tensor, batch: int, device: torch.device) -> float:
    """Seconds per image of extraction and generation together."""

    def make() -> None:
        prompts = [generator.extract(noisy, clean) for _ in range(batch)]
        generator.sample(clean.expand(batch, -1, -1, -1), prompts, list(range(batch)))

    return fewest_seconds(make, device, repeats=3) / batch


def matmul_rate(precision: Precision) -> float:
    """FLOP/s of a square product."""
    a, b = (torch.randn(_MATMUL_SIDE, _MATMUL_SIDE).to(precision.device, precision.dtype) for _ in range(2))
    return 2 * _MATMUL_SIDE**3 / fewest_seconds(lambda: a @ b, precision.device)


def transformer_rate(model: NoiseModel, precision: Precision, images: int) -> float:
    """FLOP/s of the transformer's forward on ``images`` tiles at once."""
    side, device = model.config.tile, precision.device
    encoder = model.autoencoder.encoder
    with torch.no_grad(), precision.autocast():
        noise, clean = (torch.randn(images, 3, side, side, device=device) for _ in range(2))
        code = encoder.prompts(noise)
        maps = encoder.expand(code, side, side)
        x = torch.randn(images, model.config.latent_channels, side // DOWNSAMPLING, side // DOWNSAMPLING, device=device)
        level = torch.zeros(images, device=device)

        def forward() -> Tensor:
            return model.transformer(x, level, maps, clean, code.get("statistics"))

        with FlopCounterMode(display=False) as counter:
            forward()
        return counter.get_total_flops() / fewest_seconds(forward, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="shipped", help="shipped, or a preset with random weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = Precision.best(options.device)
    if options.preset == "shipped":
        learned = NoiseGenerator.from_pretrained(device=options.device)
    else:
        learned = NoiseGenerator(NoiseModel(PRESETS[options.preset]), device=options.device)
    noisy, clean = (to_unit(image)[0][0] for image in open_references(SHIPPED).read(0))
    print(f"{device_name(options.device)}, {options.threads} threads, {precision.dtype}, code {commit()}")
    generators: dict[str, NoisyImageGenerator] = {f"png ({options.preset})": learned}
    generators |= {name: make() for name, make in BASELINES.items()}
    print(f"\nimages/s of side\n{'generator':30} {'batch':>5} {'256':>9} {'512':>9}   x awgn at 256")
    awgn = per_image(generators["awgn"], noisy, clean, 1, precision.device)
    for name, generator in generators.items():
        for batch in _BATCHES[precision.device.type] if generator is learned else (1,):
            seconds = [
                per_image(generator, noisy.repeat(1, k, k), clean.repeat(1, k, k), batch, precision.device)
                for k in (1, 2)
            ]
            print(f"{name:30} {batch:5} {1 / seconds[0]:9.2f} {1 / seconds[1]:9.2f}   {seconds[0] / awgn:.1f}")
    product = matmul_rate(precision)
    print(f"\nmatrix product of {_MATMUL_SIDE}: {product / 1e9:.0f} GFLOP/s")
    print(f"the transformer, tiles of {learned.model.config.tile}:")
    for images in (1, 4, 16, 64):
        rate = transformer_rate(learned.model, precision, images)
        print(f"  {images:3} at once {rate / 1e9:8.0f} GFLOP/s, {rate / product:.2f} of it")


if __name__ == "__main__":
    main()
