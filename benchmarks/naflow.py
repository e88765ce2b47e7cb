"""Images per second at 256 x 256: this model beside NAFlow's published architecture, on one device in one run.

.venv/bin/python -m benchmarks.naflow [--device cuda] [--rounds 7] [--json results.json]

Three kinds of work, each compared with the same kind of the other:

network     latent to image with everything else at hand; of a flow: its condition encoder and its inverse
sample      the whole of sample() with a reference's prompts reused: random numbers, network, all that follows
reference   a reference read for every image, then sample()

Both get the fastest safe precision of the device. NAFlow's network also gets its best batch size and memory layout, and
keeps the inverses of its 1 x 1 convolutions; `naflow, as released` is the release's way: float32, one image, inverted
anew. Weights of NAFlow and of the paper preset are random. Rounds are interleaved; results are medians of rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import fewest_seconds, interleaved_seconds
from pngmodel import NoiseGenerator
from pngmodel.baselines.naflow import NAFlow, NAFlowGenerator
from pngmodel.images import to_unit
from pngmodel.interface import NoisyImageGenerator
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.network.presets import PRESETS
from tasks.datasets.reference_pairs import SHIPPED, open_references
from tasks.runtime.provenance import commit, device_name

SIDE = 256
_BATCHES = {"cpu": (1, 2, 4), "cuda": (1, 4, 16, 64)}
_LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
_DEMANDED = 4.4  # of the published PNG: 57 against 13 images/s

Action = Callable[[], object]


def reference_pair() -> tuple[Tensor, Tensor]:
    """A real pair (3, 256, 256) in [0, 1] of the references shipped with the package."""
    noisy, clean = (to_unit(image)[0][0][:, :SIDE, :SIDE].contiguous() for image in open_references(SHIPPED).read(0))
    assert noisy.shape[-2:] == (SIDE, SIDE)
    return noisy, clean


def whole(generator: NoisyImageGenerator, noisy: Tensor, clean: Tensor) -> dict[str, Action]:
    """The two kinds of work that every generator has a name for."""
    prompts = generator.extract(noisy, clean)
    return {
        "sample": lambda: generator.sample(clean[None], [prompts], [1]),
        "reference": lambda: generator.sample(clean[None], [generator.extract(noisy, clean)], [1]),
    }


def png(generator: NoiseGenerator, noisy: Tensor, clean: Tensor) -> dict[str, Action]:
    """All three kinds of work of this model; its network sees the tiles of one image at a time, by design."""
    prompts = generator.extract(noisy, clean)

    @torch.no_grad()
    def network() -> Tensor:
        return generator._model_noise(clean[None], [prompts], [1])

    return {"network": network, **whole(generator, noisy, clean)}


def flow_variants(flow: NAFlow, clean: Tensor, precision: Precision) -> Iterator[tuple[str, int, Action]]:
    """Ways to draw from a flow: (what, images, action). The caller sets the flow's layout by calling the action."""
    dtypes = {torch.float32, precision.dtype}
    config = flow.config
    for batch in _BATCHES[precision.device.type]:
        z = torch.randn(batch, config.latent_channels, *[SIDE // config.downsampling] * 2, device=precision.device)
        condition = clean.to(precision.device).expand(batch, -1, -1, -1)
        for layout, memory_format in _LAYOUTS.items():
            for dtype in dtypes:
                yield (
                    f"batch {batch}, {str(dtype).removeprefix('torch.')}, {layout}",
                    batch,
                    drawing(flow, z, condition, Precision(precision.device, dtype), memory_format, keep=True),
                )


def drawing(
    flow: NAFlow, z: Tensor, clean: Tensor, precision: Precision, layout: torch.memory_format, *, keep: bool
) -> Action:
    """One call of the flow's inverse with inputs ready; ``keep`` the inverses of its linear layers."""
    z, clean = (x.contiguous(memory_format=layout) for x in (z, clean))
    # Its own copy: weights are laid out for good.
    model = NAFlow(flow.config)
    model.load_state_dict(flow.state_dict())
    model = model.to(precision.device).to(memory_format=layout).eval().requires_grad_(False)
    kernels = model.unmixing() if keep else None

    @torch.no_grad()
    def repeat() -> Tensor:
        with precision.autocast():
            return model.inverse(z, clean, kernels)

    return repeat


def naflow(noisy: Tensor, clean: Tensor, precision: Precision) -> tuple[dict[str, Action], str, int]:
    """All kinds of work of NAFlow, and which variant of its network was the fastest per image, with its batch."""
    flow = NAFlow().eval()
    found = [
        (fewest_seconds(repeat, precision.device, repeats=3) / images, what, images, repeat)
        for what, images, repeat in flow_variants(flow, clean, precision)
    ]
    for seconds, what, _, _ in found:
        print(f"  naflow, {what:40} {1 / seconds:8.2f} images/s")
    _, what, images, repeat = min(found, key=lambda entry: entry[0])
    z = torch.randn(1, flow.config.latent_channels, *[SIDE // flow.config.downsampling] * 2, device=precision.device)
    plain = Precision(precision.device, torch.float32)
    condition = clean[None].to(precision.device)
    released = drawing(flow, z, condition, plain, torch.contiguous_format, keep=False)
    actions = {
        "network": repeat,
        "released": released,
        **whole(NAFlowGenerator(flow, device=str(precision.device)), noisy, clean),
    }
    return actions, what, images


def ratios(seconds: dict[str, list[float]], ours: str, kind: str, theirs: str) -> float:
    """Images/s of ours over theirs: median over the rounds."""
    return median(b / a for a, b in zip(seconds[f"{ours} {kind}"], seconds[theirs], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = Precision.best(options.device)
    noisy, clean = reference_pair()
    where = {
        "device": device_name(options.device),
        "threads": options.threads,
        "dtype": str(precision.dtype),
        "code": commit(),
    }
    print(", ".join(f"{name} {value}" for name, value in where.items()))

    torch.manual_seed(0)
    models = {
        "small": NoiseGenerator.from_pretrained(device=options.device),
        "paper": NoiseGenerator(NoiseModel(PRESETS["paper"]), device=options.device),
    }
    theirs, variant, images = naflow(noisy, clean, precision)
    actions = {
        f"{name} {kind}": act for name, model in models.items() for kind, act in png(model, noisy, clean).items()
    }
    actions |= {f"naflow {kind}": act for kind, act in theirs.items()}
    seconds = interleaved_seconds(actions, precision.device, options.rounds)
    seconds["naflow network"] = [s / images for s in seconds["naflow network"]]

    per_second = {name: 1 / median(values) for name, values in seconds.items()}
    metrics: dict[str, Any] = {**where, "naflow network": variant, "images/s": per_second, "ratio": {}}
    print(f"\nnaflow's best network: {variant}; demanded of small: {_DEMANDED}")
    print(f"\n{'images/s':24} {'png':>8} {'naflow':>8} {'ratio':>8}")
    for name in models:
        for kind, other in [*((k, k) for k in ("network", "sample", "reference")), ("network", "released")]:
            ratio = ratios(seconds, name, kind, f"naflow {other}")
            label = f"{name} {kind}" + (" / released" if other == "released" else "")
            metrics["ratio"][label] = ratio
            print(f"{label:24} {per_second[f'{name} {kind}']:8.2f} {per_second[f'naflow {other}']:8.2f} {ratio:8.2f}")
    text = json.dumps(metrics, indent=1)
    print("\n" + text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
