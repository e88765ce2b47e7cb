"""Evaluation of denoisers on real pairs: fidelity with its spread over seeds, paired differences from the control."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from pngmodel.metrics.comparison import paired_difference
from pngmodel.metrics.fidelity import Protocol
from pngmodel.network.model import Precision
from tasks.denoising.measurement import NOISY, Candidate, Measurement, TestSet, candidates, chosen, measure
from tasks.denoising.training import REAL
from tasks.models.denoisers import CLASSICAL
from tasks.models.generators import bundle_folder
from tasks.runtime.clusters import ClusterConfig, run_each
from tasks.runtime.provenance import content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import KEY, read_record
from tasks.stores.io.filesystem import exists, join, write_json
from tasks.stores.patch_store import COMMIT as PATCHES
from tasks.stores.patch_store import PatchStore
from tasks.training.pair_sources import pairs_digest

RECORD, REPORT = "record.json", "report.html"
_FIGURES = ("psnr", "ssim")
_TOLD = ("steps", "commit", "device", "config", "data", "seconds")

Rows = list[dict[str, Any]]
"""One image each: id, psnr, ssim."""


class EvaluateDenoiserParameters(BaseModel):
    """Which denoisers are measured on which pairs."""

    model_config = ConfigDict(extra="forbid")

    denoisers: list[str] = Field(
        min_length=1, description="folders written by train_denoiser, bundles, or classical denoisers by name (nlm)"
    )
    tests: list[TestSet] = Field(min_length=1, description="real pairs")
    control: str = Field(REAL, description="arm that the others are compared with, where it is there")
    protocol: Protocol = Field("sidd", description="sidd: rounded to 8 bits, peak 255; float: not rounded, peak 1")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    output: str = Field(
        "runs/denoiser-evaluation", description=f"folder or URL for {RECORD}, {REPORT} and what was measured"
    )
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"),
        description="where work is done; one denoiser on one set of pairs is a task",
    )


def measurements(parameters: EvaluateDenoiserParameters) -> list[Measurement]:
    """Everything that is to be measured: the noisy images as they are, then every denoiser, on every set.

    Raises:
        UserError: a denoiser or a set cannot be used, or two sets have one name.
    """
    Precision.best(parameters.device)
    names = [test.name for test in parameters.tests]
    if len(set(names)) < len(names):
        raise UserError(f"tests: names must differ, found {', '.join(names)}")
    found = [Candidate(NOISY, 0, "", content_key(NOISY)), *candidates(parameters.denoisers)]
    tasks = []
    for test in parameters.tests:
        source, pairs = chosen(test)
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
    """Figures of every image, from ``output`` where they were measured before; a second run measures nothing."""
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
    """The evaluation record (JSON-able)."""
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
            "metrics": {arm: _figures(seeds) for arm, seeds in arms.items()},
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
    """Arms whose real training pairs are among those of a set: their figures there are no test."""
    store = PatchStore.open(test.references) if exists(join(test.references, PATCHES)) else None
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
    """A denoiser: how it was trained, and its own figures by set."""
    metrics = {
        f"{task.test}.{name}": fmean(row[name] for row in rows)
        for task, rows in found.items()
        if task.candidate == candidate
        for name in _FIGURES
    }
    facts = {"arm": candidate.arm, "seed": candidate.seed, "digest": candidate.digest, "metrics": metrics}
    if candidate.denoiser in CLASSICAL:
        return facts
    config = bundle_config(bundle_folder(candidate.denoiser))
    training = {name: config["training"][name] for name in _TOLD if name in config["training"]}
    return facts | {"network": config["model"], "training": training}


def _figures(seeds: dict[int, Rows]) -> dict[str, Any]:
    """Mean over images, then over seeds; the spread is the standard deviation over seeds, which one has not."""
    out: dict[str, Any] = {"seeds": sorted(seeds)}
    for name in _FIGURES:
        means = [fmean(row[name] for row in seeds[seed]) for seed in sorted(seeds)]
        out |= {name: fmean(means), f"{name}_by_seed": means}
        out |= {f"{name}_spread": stdev(means)} if len(means) > 1 else {}
    return out


def _differences(arms: dict[str, dict[int, Rows]], control: str) -> dict[str, Any]:
    """Every arm minus the control, paired by image, and by seed where both have the same ones."""
    if control not in arms:
        return {}
    out: dict[str, Any] = {}
    for arm, seeds in arms.items():
        if arm in (control, NOISY):
            continue
        paired = sorted(seeds) == sorted(arms[control])
        scenes = [row["scene"] for row in next(iter(seeds.values()))]
        for name in _FIGURES:
            mine, others = (_by_seed(side, name, mean=not paired) for side in (seeds, arms[control]))
            found = paired_difference(mine, others, scenes=scenes)
            difference = {"mean": found.mean, "low": found.low, "high": found.high, "seeds_paired": paired}
            out.setdefault(arm, {})[name] = difference
    return out


def _by_seed(seeds: dict[int, Rows], name: str, *, mean: bool) -> list[list[float]]:
    """(seeds, images) of one figure; ``mean``: over the seeds, as one row."""
    rows = [[row[name] for row in seeds[seed]] for seed in sorted(seeds)]
    return [[fmean(column) for column in zip(*rows, strict=True)]] if mean else rows


def publish_record(output: str, record: dict[str, Any]) -> str:
    """Write the record; returns its place."""
    location = join(output, RECORD)
    write_json(location, record)
    return location


task_measure_all = step("measure_denoisers")(measure_all)
