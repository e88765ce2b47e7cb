"""Evaluation of noise generators on real pairs: figures beside the floor and the baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pngmodel.baselines import BASELINES
from pngmodel.errors import UserError
from pngmodel.images import to_unit
from pngmodel.metrics.protocols import floor_figures, mean_figures, noise_figures
from pngmodel.model import Precision
from pngmodel.seeds import derive_seed
from tasks.generators import SHIPPED_MODEL, load_generator, model_digest, one_thread
from tasks.provenance import code_version, content_key, device_name
from tasks.sources import SHIPPED, open_references
from tasks.stores.filesystem import write_json

PROTOCOL = "noise-A"
"""Reference protocol A: the prompts come from the very pair whose clean image is made noisy (one draw)."""


_EXAMPLES = 8
_EXAMPLE_SIDE = 256  # pictures need no more, and a full frame would be hundreds of megabytes


class EvaluateParameters(BaseModel):
    """Which generator is measured on which pairs."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(SHIPPED_MODEL, description="'shipped', a model bundle, or a baseline's name")
    references: str = Field(SHIPPED, description="real pairs: 'shipped', a patch store or a catalogue")
    split: str | None = Field(None, description="only pairs of this split of the store, e.g. validation")
    camera: str | None = Field(None, description="only pairs of this camera")
    limit: int | None = Field(None, ge=1, description="at most so many pairs, evenly spread")
    seed: int = Field(0, ge=0, description="seed of the draws")
    baselines: bool = Field(True, description="measure the baselines on the same pairs too")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    output: str | None = Field(None, description="file or URL for the evaluation record (JSON)")
    report: str | None = Field(None, description="file or URL for an HTML page with figures and pictures")


@dataclass(frozen=True)
class Example:
    """One evaluated pair and what the generators made of it; (C, H, W) in [0, 1], unrounded."""

    id: str
    camera: str | None
    iso: int | None
    clean: Tensor
    real: Tensor
    generated: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The record (JSON-able), and the examples that pictures are made of."""

    record: dict[str, Any]
    examples: tuple[Example, ...]


def _chosen(parameters: EvaluateParameters) -> list[int]:
    source = open_references(parameters.references)
    picks = [k for k in source.of_split(parameters.split) if parameters.camera in (None, source.references[k].camera)]
    if not picks:
        cameras = sorted({str(r.camera) for r in source.references})
        raise UserError(f"{parameters.references}: no pair of camera {parameters.camera!r}; cameras there: {cameras}")
    if parameters.limit and parameters.limit < len(picks):
        picks = [picks[int(i)] for i in np.linspace(0, len(picks) - 1, parameters.limit).round()]
    return picks


def _centre(image: Tensor) -> tuple[slice, slice, slice]:
    """The central square of (C, H, W)."""
    corners = [max(0, (side - _EXAMPLE_SIDE) // 2) for side in image.shape[-2:]]
    rows, columns = (slice(c, c + _EXAMPLE_SIDE) for c in corners)
    return slice(None), rows, columns


@one_thread()
def evaluate_noise(
    parameters: EvaluateParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> Evaluation:
    """Measure the generator (row ``model``), the baselines and the floor on every chosen pair.

    Raises:
        UserError: the model or the pairs cannot be used.
    """
    Precision.best(parameters.device)  # a wrong device is said at once, also for generators that ignore it
    source, picks = open_references(parameters.references), _chosen(parameters)
    shown = {picks[int(i)] for i in np.linspace(0, len(picks) - 1, _EXAMPLES).round()}
    names = {"model": parameters.model} | ({n: n for n in BASELINES} if parameters.baselines else {})
    if parameters.model in BASELINES:
        names.pop(parameters.model, None)
    digests = {row: model_digest(name) for row, name in names.items()}
    generators = {row: load_generator(name, parameters.device, digests[row]) for row, name in names.items()}
    figures: dict[str, list[dict[str, float]]] = {row: [] for row in [*generators, "floor"]}
    examples, cameras = [], []
    for done, k in enumerate(picks):
        info = source.references[k]
        real, clean = (to_unit(image, info.id)[0][0] for image in source.read(k))
        generated = {}
        seed = derive_seed("evaluate", parameters.seed, info.id)
        for row, generator in generators.items():
            prompts = generator.extract(real, clean)
            generated[row] = generator.sample(clean[None], [prompts], [seed])[0]
            figures[row].append(noise_figures(real, generated[row], clean))
        figures["floor"].append(floor_figures(real, clean))
        cameras.append(info.camera or "unknown camera")
        if k in shown:
            cut = _centre(clean)
            crops = {row: image[cut] for row, image in generated.items()}
            examples.append(Example(info.id, info.camera, info.iso, clean[cut], real[cut], crops))
        progress(done + 1, len(picks))
    by_camera = {
        camera: {
            row: mean_figures([v for v, c in zip(values, cameras, strict=True) if c == camera])
            for row, values in figures.items()
        }
        for camera in sorted(set(cameras))
    }
    record = {
        "protocol": PROTOCOL,
        "pairs": len(picks),
        "seed": parameters.seed,
        "model": {"digest": digests["model"]},
        "references": content_key([source.references[k].content for k in picks]),
        "device": device_name(parameters.device),
        "code": code_version(),
        # Mean over the images of a camera, then the plain mean of the cameras, as published tables are made.
        "figures": {row: mean_figures([rows[row] for rows in by_camera.values()]) for row in figures},
        "cameras": by_camera,
        "cameras_pairs": {camera: cameras.count(camera) for camera in by_camera},
    }
    if parameters.output:
        write_json(parameters.output, record)
    return Evaluation(record, tuple(examples))


task_evaluate_noise = task(cache_policy=NO_CACHE, persist_result=False, name="evaluate_noise")(evaluate_noise)
