"""Camera classification from the frozen prompts of a model, compared with a network of equal size on the noise itself.

Source: PNG, CVPR 2026, arXiv 2603.04870, experiment on metadata in prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.metrics import metadata
from pngmodel.network.model import Precision
from tasks.datasets.reference_pairs import Reference
from tasks.evaluation.metadata_samples import (
    Samples,
    choose_samples,
    held_out_scenes,
    read_samples,
    splittable_classes,
)
from tasks.evaluation.parameters import MetadataParameters
from tasks.models.generators import one_thread
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import code_version, content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import KEY, read_record
from tasks.stores.io.filesystem import write_json

ROWS = ("prompts", "noise")
TASKS = ("camera", "camera+iso")
PUBLISHED = {
    "camera": {"prompts": {"top1": 0.9447}, "noise": {"top1": 0.7580}},
    "camera+iso": {"prompts": {"top1": 0.7548, "top3": 0.9864}},
}
"""Accuracies that PNG (arXiv 2603.04870) reports on SIDD, with 5 cameras and 16 classes of camera and ISO. Data and
classifier differ from this evaluation."""
_HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class Trial:
    """Task of a worker: one network to train."""

    row: str
    task: str
    seed: int
    samples: Samples
    rows: tuple[int, ...]
    """Samples of the task. ``labels``, ``train`` and ``held_out`` refer to positions in this tuple."""
    labels: tuple[int, ...]
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    classes: int
    budget: metadata.Budget


@one_thread()
def run_trial(trial: Trial) -> tuple[Tensor, Tensor, int]:
    """Train one network; return the held-out logits, their classes, and the number of parameters."""
    features, noise = read_samples(trial.samples)
    labels, rows = torch.tensor(trial.labels), list(trial.rows)
    size = metadata.parameters_of(metadata.PromptHead(features.shape[1], trial.budget.hidden, trial.classes))
    sides = (trial.train, trial.held_out, trial.classes, trial.budget, trial.seed)
    if trial.row == "prompts":
        scored = metadata.train_on_prompts(features[rows], labels, *sides)
        return scored.logits, scored.labels, size
    precision = Precision.best(trial.samples.generator[1])
    scored = metadata.train_on_noise(noise[rows], labels, *sides, size, precision)
    return scored.logits, scored.labels, metadata.parameters_of(metadata.noise_head(size, trial.classes))


def _label(reference: Reference, kind: str) -> str | None:
    if kind == "camera":
        return reference.camera
    return None if reference.iso is None else f"{reference.camera} ISO {reference.iso}"


@dataclass(frozen=True)
class _Planned:
    """One classification task: its samples and classes, and the held-out scenes of each seed."""

    rows: tuple[int, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    datasets: tuple[str, ...]
    scenes: tuple[str, ...]
    skipped: tuple[dict[str, str], ...]
    held_out: dict[int, set[str]]

    def sides(self, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return training and held-out samples as positions in ``rows``."""
        out = [scene in self.held_out[seed] for scene in self.scenes]
        return tuple(k for k, o in enumerate(out) if not o), tuple(k for k, o in enumerate(out) if o)


def _plan(samples: Samples, kind: str, parameters: MetadataParameters) -> _Planned:
    every = [(row, samples.reference(row)) for row in range(len(samples.picks))]
    known = [(row, r, label) for row, r in every if (label := _label(r, kind)) is not None]
    # Equal scene names mean the same scene in all sources: SIDD has each scene from every camera, in several crops.
    found = splittable_classes([label for _, _, label in known], [r.scene for _, r, _ in known], parameters.least)
    if len(found.classes) < 2:
        reasons = "; ".join(f"{x['class']}: {x['reason']}" for x in found.skipped[:5])
        raise UserError(
            f"metadata: {len(found.classes)} classes of {kind} can be split by scene, at least 2 are required "
            f"({reasons}); add pairs"
        )
    chosen = [known[k] for k in found.rows]
    labels, scenes = [label for _, _, label in chosen], [r.scene for _, r, _ in chosen]
    seeds = range(parameters.seed, parameters.seed + parameters.seeds)
    held_out = {seed: held_out_scenes(labels, scenes, _HELD_OUT_SHARE, seed) for seed in seeds}
    if not all(held_out.values()):
        raise UserError(
            f"metadata: holding out any scene leaves a class of {kind} without enough training samples; add pairs"
        )
    datasets = tuple(r.dataset for _, r, _ in chosen)
    rows = tuple(row for row, _, _ in chosen)
    return _Planned(rows, tuple(labels), found.classes, datasets, tuple(scenes), found.skipped, held_out)


def classify_metadata(
    parameters: MetadataParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Measure the accuracy of both networks on both tasks, with mean and standard deviation over seeds.

    Args:
        parameters: Parameters of the evaluation.
        progress: Called with (done, total) networks.

    Returns:
        The evaluation record. A record at ``output`` with the same inputs is returned without computing it again.

    Raises:
        UserError: The model or the pairs cannot be used, or fewer than two classes can be split by scene.
    """
    Precision.best(parameters.device)
    p = parameters
    samples, skipped = choose_samples(p.model, p.device, p.references, p.features, limit=p.limit, side=p.side)
    budget = metadata.Budget(parameters.steps, parameters.batch, parameters.hidden)
    contents = [samples.reference(row).content for row in range(len(samples.picks))]
    settings = p.model_dump(include={"features", "side", "least", "steps", "batch", "hidden", "seeds", "seed"})
    references = [samples.reference(row) for row in range(len(samples.picks))]
    labels_of = [[r.id, r.camera, r.iso, r.dataset, r.scene] for r in references]
    facts = [settings, samples.generator[2], contents, labels_of, device_name(parameters.device)]
    key = content_key([*facts, evaluation_version()])
    if kept := read_record(parameters.output, key):
        return kept
    plans = {kind: _plan(samples, kind, parameters) for kind in TASKS}
    trials = []
    for kind, plan in plans.items():
        numbers = tuple(plan.classes.index(label) for label in plan.labels)
        for seed in plan.held_out:
            sides, classes = plan.sides(seed), len(plan.classes)
            trials += [Trial(r, kind, seed, samples, plan.rows, numbers, *sides, classes, budget) for r in ROWS]
    found: dict[tuple[str, str, int], metadata.Scored] = {}
    sizes: dict[str, dict[str, int]] = {kind: {} for kind in TASKS}
    progress(0, len(trials))
    for trial, (logits, labels, size) in run_each(parameters.cluster, run_trial, trials):
        found[trial.task, trial.row, trial.seed] = metadata.Scored(logits, labels)
        sizes[trial.task][trial.row] = size
        progress(len(found), len(trials))
    names = ("steps", "batch", "hidden", "seeds", "seed", "side", "least")
    record = {
        "protocol": f"metadata-{parameters.features}",
        "pairs": len(contents),
        "skipped": skipped,
        "budget": {name: getattr(parameters, name) for name in names},
        "model": {"digest": samples.generator[2]},
        "references": content_key(contents),
        "device": device_name(parameters.device),
        "code": code_version(),
        "tasks": {
            kind: _summary(plan, {key[1:]: scored for key, scored in found.items() if key[0] == kind})
            | {"parameters": sizes[kind], "published": PUBLISHED[kind]}
            for kind, plan in plans.items()
        },
        KEY: key,
    }
    if parameters.output:
        write_json(parameters.output, record)
    return record


def _summary(plan: _Planned, found: dict[tuple[str, int], metadata.Scored]) -> dict[str, Any]:
    """Metrics of one classification task."""
    seeds, classes = list(plan.held_out), len(plan.classes)
    by_dataset = {d: {c for c, e in zip(plan.labels, plan.datasets, strict=True) if e == d} for d in plan.datasets}
    allowed = torch.tensor([[c in by_dataset[d] for c in plan.classes] for d in plan.datasets])
    metrics: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        each = [_metrics(found[row, seed], allowed[list(plan.sides(seed)[1])]) for seed in seeds]
        metrics[row] = _over_seeds(each)
    metrics["majority"] = _over_seeds([_majority(plan, seed) for seed in seeds])
    choices = [allowed[list(plan.sides(seed)[1])].sum(1).double() for seed in seeds]
    metrics["chance"] = {"top1": 1 / classes, "top3": min(metadata.TOP, classes) / classes, "balanced": 1 / classes}
    metrics["chance"]["within_dataset"] = fmean(float((1 / c).mean()) for c in choices)
    counts = {row: sum((metadata.confusion(found[row, s], classes) for s in seeds), torch.tensor(0)) for row in ROWS}
    samples = Counter(plan.labels)
    return {
        "classes": list(plan.classes),
        "samples": {name: samples[name] for name in plan.classes},
        "skipped": list(plan.skipped),
        "held_out": {str(seed): _held_out_facts(plan, seed) for seed in seeds},
        "metrics": metrics,
        "confusion": {row: matrix.tolist() for row, matrix in counts.items()},
    }


def _metrics(scored: metadata.Scored, allowed: Tensor) -> dict[str, float]:
    return {
        "top1": metadata.top_accuracy(scored),
        "top3": metadata.top_accuracy(scored, metadata.TOP),
        "balanced": metadata.balanced_accuracy(scored),
        "within_dataset": metadata.top_accuracy(scored, allowed=allowed),
    }


def _majority(plan: _Planned, seed: int) -> dict[str, float]:
    """Accuracy of always predicting the most frequent classes of the training samples."""
    train, held_out = plan.sides(seed)
    frequent = [name for name, _ in Counter(plan.labels[k] for k in train).most_common(metadata.TOP)]
    tested = [plan.labels[k] for k in held_out]
    return {"top1": fmean(t == frequent[0] for t in tested), "top3": fmean(t in frequent for t in tested)}


def _over_seeds(each: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds, and standard deviations if there are several."""
    out: dict[str, Any] = {name: fmean(f[name] for f in each) for name in each[0]}
    if len(each) > 1:
        out |= {f"{name}_spread": stdev(f[name] for f in each) for name in each[0]}
    return out | {"top1_by_seed": [f["top1"] for f in each]}


def _held_out_facts(plan: _Planned, seed: int) -> dict[str, Any]:
    train, held_out = plan.sides(seed)
    tested = {plan.labels[k] for k in held_out}
    facts = {"training_samples": len(train), "samples": len(held_out), "scenes": sorted(plan.held_out[seed])}
    return facts | {"classes_not_tested": [name for name in plan.classes if name not in tested]}


task_classify_metadata = step("classify_metadata")(classify_metadata)
