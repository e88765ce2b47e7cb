"""Evaluation of denoisers on real pairs: PSNR and SSIM over seeds, and paired differences from the control."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from pngmodel.metrics.comparison import paired_difference
from pngmodel.network.model import Precision
from tasks.denoising.measurement import NOISY, Candidate, Measurement, candidates, measure, select_pairs
from tasks.denoising.parameters import EvaluateDenoiserParameters, TestSet
from tasks.models.denoisers import CLASSICAL
from tasks.models.generators import bundle_folder
from tasks.runtime.clusters import run_each
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.provenance import content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import KEY, read_record
from tasks.stores.io.filesystem import join, write_json
from tasks.stores.kinds import is_kind
from tasks.stores.patch_store import PatchStore
from tasks.training.pair_sources import pairs_digest

RECORD, REPORT = "record.json", "report.html"
_METRICS = ("psnr", "ssim")
_TRAINING_FACTS = ("steps", "commit", "device", "config", "data", "seconds")

Rows = list[dict[str, Any]]
"""One row per image: id, scene, psnr, ssim."""


def measurements(parameters: EvaluateDenoiserParameters) -> list[Measurement]:
    """List the measurements of an evaluation: for every test set the noisy images, then every denoiser.

    Raises:
        UserError: A denoiser or a test set cannot be used, or two test sets have the same name.
    """
    Precision.best(parameters.device)
    names = [test.name for test in parameters.tests]
    if len(set(names)) < len(names):
        raise UserError(f"tests: names must be unique, got {', '.join(names)}; rename a test set")
    found = [Candidate(NOISY, 0, "", content_key(NOISY)), *candidates(parameters.denoisers)]
    tasks = []
    for test in parameters.tests:
        source, pairs = select_pairs(test)
        content = content_key([source.references[k].content for k in pairs])
        tasks += [
            Measurement(
                candidate=candidate,
                device=parameters.device,
                test=test.name,
                source=(test.references, source.digest),
                pairs=pairs,
                content=content,
                protocol=parameters.protocol,
            )
            for candidate in found
        ]
    return tasks


def measure_all(
    tasks: list[Measurement],
    output: str,
    cluster: ClusterConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Measurement, Rows]:
    """Measure every image. Results that are already in ``output`` are reused.

    Args:
        tasks: Measurements.
        output: Folder or URL; results are in the subfolder ``measured``.
        cluster: Cluster.
        progress: Called with (done, total) measurements.
    """
    found: dict[Measurement, Rows] = {}
    for task in tasks:
        kept = read_record(_location(output, task), task.key)
        if kept is not None:
            found[task] = kept["images"]
    todo = [task for task in tasks if task not in found]
    progress(len(found), len(tasks))
    for task, rows in run_each(cluster, measure, todo):
        facts = {"arm": task.candidate.arm, "seed": task.candidate.seed, "denoiser": task.candidate.digest}
        facts |= {"test": task.test, "protocol": task.protocol, "device": device_name(task.device)}
        write_json(_location(output, task), facts | {"images": rows, KEY: task.key})
        found[task] = rows
        progress(len(found), len(tasks))
    return found


def _location(output: str, task: Measurement) -> str:
    return join(output, "measured", f"{content_key([task.key, device_name(task.device)])}.json")


def record_of(parameters: EvaluateDenoiserParameters, found: dict[Measurement, Rows]) -> dict[str, Any]:
    """Build the JSON-serialisable evaluation record from the metrics of all images."""
    tests = {}
    for test in parameters.tests:
        mine = [task for task in found if task.test == test.name]
        arms: dict[str, dict[int, Rows]] = {}
        for task in mine:
            arms.setdefault(task.candidate.arm, {})[task.candidate.seed] = found[task]
        tests[test.name] = {
            "pairs": len(mine[0].pairs),
            "scenes": len({row["scene"] for row in found[mine[0]]}),
            "trained_on": _trained_on(test, [task.candidate for task in mine]),
            "references": mine[0].content,
            "chosen": test.model_dump(mode="json", exclude={"name", "references"}),
            "metrics": {arm: _arm_metrics(seeds) for arm, seeds in arms.items()},
            "differences": _differences(arms, parameters.control),
        }
    used = {(w.candidate.arm, w.candidate.seed): w.candidate for w in found}
    denoisers = [_facts(candidate, found) for _, candidate in sorted(used.items()) if candidate.arm != NOISY]
    return {
        "protocol": f"denoiser-{parameters.protocol}",
        "control": parameters.control,
        "denoisers": denoisers,
        "tests": tests,
        "device": device_name(parameters.device),
        "code": evaluation_version(),
    }


def _trained_on(test: TestSet, used: list[Candidate]) -> list[str]:
    """Return the arms that were trained on pairs of this test set, for which it is not a valid test."""
    store = PatchStore.open(test.references) if is_kind(test.references, "patch store") else None
    if store is None:
        return []
    splits = {test.split, None} if test.split else {*store.table.column("split").to_pylist(), None}
    digests = {pairs_digest(store.digest, split) for split in splits}
    arms = []
    for candidate in used:
        if candidate.arm == NOISY or candidate.denoiser in CLASSICAL:
            continue
        training = bundle_config(bundle_folder(candidate.denoiser))["training"]
        if digests & {source["digest"] for source in training.get("data", [])}:
            arms.append(candidate.arm)
    return sorted(set(arms))


def _facts(candidate: Candidate, found: dict[Measurement, Rows]) -> dict[str, Any]:
    """Return training facts of a denoiser and its metrics by test set."""
    metrics = {
        f"{task.test}.{name}": fmean(row[name] for row in rows)
        for task, rows in found.items()
        if task.candidate == candidate
        for name in _METRICS
    }
    facts = {"arm": candidate.arm, "seed": candidate.seed, "digest": candidate.digest, "metrics": metrics}
    if candidate.denoiser in CLASSICAL:
        return facts
    config = bundle_config(bundle_folder(candidate.denoiser))
    training = {name: config["training"][name] for name in _TRAINING_FACTS if name in config["training"]}
    return facts | {"network": config["model"], "training": training}


def _arm_metrics(seeds: dict[int, Rows]) -> dict[str, Any]:
    """Mean over images, then over seeds; ``_spread`` is the standard deviation over seeds, if there are several."""
    out: dict[str, Any] = {"seeds": sorted(seeds)}
    for name in _METRICS:
        means = [fmean(row[name] for row in seeds[seed]) for seed in sorted(seeds)]
        out |= {name: fmean(means), f"{name}_by_seed": means}
        out |= {f"{name}_spread": stdev(means)} if len(means) > 1 else {}
    return out


def _differences(arms: dict[str, dict[int, Rows]], control: str) -> dict[str, Any]:
    """Differences of all arms from the control, paired by image, and by seed if both have the same seeds."""
    if control not in arms:
        return {}
    out: dict[str, Any] = {}
    for arm, seeds in arms.items():
        if arm in (control, NOISY):
            continue
        paired = sorted(seeds) == sorted(arms[control])
        scenes = [row["scene"] for row in next(iter(seeds.values()))]
        for name in _METRICS:
            values, control_values = (_by_seed(side, name, mean=not paired) for side in (seeds, arms[control]))
            found = paired_difference(values, control_values, scenes=scenes)
            difference = {"mean": found.mean, "low": found.low, "high": found.high, "seeds_paired": paired}
            out.setdefault(arm, {})[name] = difference
    return out


def _by_seed(seeds: dict[int, Rows], name: str, *, mean: bool) -> list[list[float]]:
    """Values of a metric as (seeds, images); with ``mean`` the mean over seeds as a single row."""
    rows = [[row[name] for row in seeds[seed]] for seed in sorted(seeds)]
    return [[fmean(column) for column in zip(*rows, strict=True)]] if mean else rows


def publish_record(output: str, record: dict[str, Any]) -> str:
    """Write the record to the output folder; return its location."""
    location = join(output, RECORD)
    write_json(location, record)
    return location


task_measure_all = step("measure_denoisers")(measure_all)
