"""Evaluation of noise generators on real pairs: metrics of the model, the baselines and the floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from pngmodel import NoiseGenerator
from pngmodel.interface import NoisyImageGenerator
from pngmodel.metrics.protocols import SAMPLE_METRICS, floor_metrics, mean_metrics, noise_metrics
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed
from tasks.datasets.reference_pairs import open_pairs
from tasks.evaluation.pair_selection import (
    EvaluationPair,
    compared_digests,
    evenly_spaced,
    generators_by_row,
    labels_key,
    pairings_key,
    read_pair,
    select_pairings,
)
from tasks.evaluation.parameters import EvaluateParameters
from tasks.models.generators import load_generator, one_thread
from tasks.reports.results import Evaluation, Example
from tasks.reports.tables import report_page
from tasks.runtime.provenance import code_version, content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import KEY, read_record
from tasks.stores.io.filesystem import exists, write_bytes, write_json

Group = TypeVar("Group", str, tuple[str, int])

_EXAMPLES = 8
_EXAMPLE_SIDE = 256  # pixels; enough for plots, whereas full frames would take hundreds of megabytes


def _centre(image: Tensor) -> tuple[slice, slice, slice]:
    """Slices of the central square of an image (C, H, W)."""
    corners = [max(0, (side - _EXAMPLE_SIDE) // 2) for side in image.shape[-2:]]
    rows, columns = (slice(c, c + _EXAMPLE_SIDE) for c in corners)
    return slice(None), rows, columns


def _measure(
    generator: NoisyImageGenerator, pair: EvaluationPair, seed: int, name: str, *, twice: bool
) -> tuple[Tensor, dict[str, float]]:
    """Sample a noisy image for one pair; return it and its metrics, with those of two samples if ``twice``."""
    prompts = generator.extract(pair.reference_noisy, pair.reference_clean)

    def sample(stream: str) -> Tensor:
        return generator.sample(pair.clean[None], [prompts], [derive_seed(stream, seed, name)])[0].cpu()

    generated = sample("evaluate")
    metrics = noise_metrics(pair.real, generated, pair.clean)
    if twice:
        second = sample("evaluate again")
        metrics |= {key: metric.compute(generated, second, pair.clean) for key, metric in SAMPLE_METRICS.items()}
    return generated, metrics


def _means_by(
    metrics: dict[str, list[dict[str, float]]], groups: Sequence[Group]
) -> dict[Group, dict[str, dict[str, float]]]:
    """Average the metrics of each row over the pairs of each group; pair k belongs to ``groups[k]``."""
    return {
        group: {
            row: mean_metrics([v for v, g in zip(values, groups, strict=True) if g == group])
            for row, values in metrics.items()
        }
        for group in sorted(set(groups))
    }


def _setting(camera: str, iso: int) -> str:
    """Format camera and ISO; an ISO of 0 means unknown."""
    return f"{camera} ISO {iso or 'unknown'}"


def simplifications(generators: Mapping[str, NoisyImageGenerator]) -> dict[str, list[str]]:
    """Return by row how re-implemented generators differ from their papers; rows without differences are omitted."""
    return {row: list(generator.simplifications) for row, generator in generators.items() if generator.simplifications}


@one_thread()
def evaluate_noise(
    parameters: EvaluateParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> Evaluation:
    """Measure the generator (row ``model``), the baselines and the floor on every selected pair.

    All generators get the same reference. Only the model is sampled twice, for ``sample_correlation``.

    Args:
        parameters: Parameters of the evaluation.
        progress: Called with (done, total) pairs.

    Returns:
        The record, and examples for the report. If ``output`` already has the record of the same inputs, and the
        report exists or is not requested, that record is returned without examples.

    Raises:
        UserError: The model or the pairs cannot be used, or no pair has a reference under the protocol.
    """
    Precision.best(parameters.device)  # reject an invalid device early, also for generators that ignore it
    source = open_pairs(parameters.references)
    protocol, seed = parameters.reference, parameters.seed
    chosen = select_pairings(
        source,
        parameters.references,
        split=parameters.split,
        camera=parameters.camera,
        protocol=protocol,
        seed=seed,
    )
    pairings = evenly_spaced(chosen.found, parameters.limit)
    example_indices = {int(i) for i in np.linspace(0, len(pairings) - 1, _EXAMPLES).round()}
    named = generators_by_row(
        parameters.model, parameters.device, baselines=parameters.baselines, compare=parameters.compare
    )
    digests = {row: name[2] for row, name in named.items()}
    facts = [protocol, seed, digests, pairings_key(source, pairings), labels_key(source, pairings)]
    key = content_key([*facts, list(chosen.skipped), device_name(parameters.device), evaluation_version()])
    if (kept := read_record(parameters.output, key)) and (parameters.report is None or exists(parameters.report)):
        return Evaluation(kept, ())
    generators = {row: load_generator(*name) for row, name in named.items()}
    learned = generators["model"]
    if parameters.baselines and isinstance(learned, NoiseGenerator) and learned.model.config.calibration != "none":
        generators = {"model": learned, "uncalibrated": learned.uncalibrated()} | generators
    metrics: dict[str, list[dict[str, float]]] = {row: [] for row in [*generators, "floor"]}
    examples: list[Example] = []
    cameras: list[str] = []
    settings: list[tuple[str, int]] = []
    for done, pairing in enumerate(pairings):
        info, pair = source.references[pairing.target], read_pair(source, pairing)
        generated = {}
        for row, generator in generators.items():
            generated[row], found = _measure(generator, pair, seed, info.id, twice=row == "model")
            metrics[row].append(found)
        metrics["floor"].append(floor_metrics(pair.real, pair.clean))
        cameras.append(info.camera or "unknown camera")
        settings.append((cameras[-1], info.iso or 0))
        if done in example_indices:
            cut = _centre(pair.clean)
            crops = {row: image[cut] for row, image in generated.items()}
            examples.append(Example(info.id, info.camera, info.iso, pair.clean[cut], pair.real[cut], crops))
        progress(done + 1, len(pairings))
    by_camera, by_setting = _means_by(metrics, cameras), _means_by(metrics, settings)
    record = {
        "protocol": f"noise-{protocol}",
        "pairs": len(pairings),
        "reference_kinds": dict(sorted(Counter(p.kind for p in pairings).items())),
        "skipped": list(chosen.skipped),
        "seed": seed,
        "model": {"digest": named["model"][2]},
        "compare": compared_digests(named),
        "references": pairings_key(source, pairings),
        "device": device_name(parameters.device),
        "code": code_version(),
        # Mean over the images of each camera, then over cameras, as in published tables.
        "metrics": {row: mean_metrics([rows[row] for rows in by_camera.values()]) for row in metrics},
        "cameras": by_camera,
        "cameras_pairs": {camera: cameras.count(camera) for camera in by_camera},
        "settings": {_setting(*setting): rows for setting, rows in by_setting.items()},
        "settings_pairs": {_setting(*setting): settings.count(setting) for setting in by_setting},
        "simplifications": simplifications(generators),
        KEY: key,
    }
    if parameters.output:
        write_json(parameters.output, record)
    return Evaluation(record, tuple(examples))


def write_report(evaluation: Evaluation, url: str) -> None:
    """Write an evaluation as an HTML page to ``url``."""
    record = evaluation.record
    lead = (
        f"{record['pairs']} real pairs of {', '.join(record['cameras'])}. Prompts come from {_prompt_sources(record)}."
    )
    if record["skipped"]:
        first = record["skipped"][0]
        lead += f" {len(record['skipped'])} pairs were skipped, e.g. {first['id']}: {first['reason']}."
    title = f"Noise evaluation, {record['protocol']}"
    write_bytes(url, report_page(evaluation, title=title, lead=lead).encode())


def _prompt_sources(record: Mapping[str, Any]) -> str:
    return " or ".join(f"{kind} ({count})" for kind, count in record["reference_kinds"].items())


task_evaluate_noise = step("evaluate_noise")(evaluate_noise)
task_write_report = step("write_report")(write_report)
