"""Classifier two-sample test (C2ST): how well a small network distinguishes generated noise from real noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

from pngmodel.errors import UserError
from pngmodel.interface import Prompts
from pngmodel.metrics import c2st
from pngmodel.network.model import Precision
from pngmodel.seeds import derive_seed
from tasks.datasets.reference_pairs import Reference, ReferenceSource, open_pairs, planned_references
from tasks.evaluation.noise import simplifications
from tasks.evaluation.pair_selection import (
    central_square,
    compared_digests,
    evenly_spaced,
    generators_by_row,
    labels_key,
    pairings_key,
    read_pair,
    select_pairings,
)
from tasks.evaluation.parameters import C2stParameters, HoldOut
from tasks.evaluation.reference_protocols import Pairing
from tasks.models.generators import load_generator, one_thread
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import code_version, content_key, device_name, evaluation_version
from tasks.runtime.steps import step
from tasks.stores.io.cached_record import KEY, read_record
from tasks.stores.io.filesystem import write_json

_HELD_OUT_SHARE = 0.25
_VALIDATION = "validation"
_SIDE = 256  # pixels; larger images are cropped to their centre


@dataclass(frozen=True)
class Trial:
    """Task of a worker: one classifier to train, for one generator and seed."""

    row: str
    seed: int
    generator: tuple[str, str, str]
    source: tuple[str, str]
    train: tuple[Pairing, ...]
    held_out: tuple[Pairing, ...]
    budget: c2st.Budget


def hold_out(
    source: ReferenceSource, pairings: tuple[Pairing, ...], kind: HoldOut, seed: int
) -> tuple[tuple[Pairing, ...], tuple[Pairing, ...]]:
    """Split pairs into training and held-out pairs by whole scenes or images. Depends only on ids and the seed.

    Raises:
        UserError: One side is empty.
    """

    def group(pairing: Pairing) -> tuple[str, str]:
        reference = source.references[pairing.target]
        if kind == "split":
            return "", reference.split
        return reference.dataset, reference.scene if kind == "scene" else reference.image

    groups = sorted({group(p) for p in pairings}, key=lambda g: (derive_seed("hold out", kind, seed, *g), g))
    kept = set(groups[: max(1, round(_HELD_OUT_SHARE * len(groups)))]) if kind != "split" else {("", _VALIDATION)}
    train = tuple(p for p in pairings if group(p) not in kept)
    rest = tuple(p for p in pairings if group(p) in kept)
    if not train or not rest:
        names = ", ".join(repr(name) for _, name in groups[:5])
        raise UserError(
            f"c2st: --hold-out {kind} leaves {len(train)} training pairs and {len(rest)} test pairs ({names}); "
            "add pairs, or set --hold-out to another of scene, image, split"
        )
    return train, rest


def _too_small(reference: Reference, pairing: Pairing) -> str | None:
    sides = sorted((reference.height, reference.width))
    smallest = sides[0] if pairing.half is None else min(sides[0], sides[1] // 2)
    return (
        f"the evaluated region has a side of {smallest} pixels, less than {c2st.PATCH}"
        if smallest < c2st.PATCH
        else None
    )


@lru_cache(maxsize=256)
def _prompts(generator: tuple[str, str, str], source: tuple[str, str], pairing: Pairing) -> Prompts:
    pair = read_pair(planned_references(*source), pairing)
    return load_generator(*generator).extract(pair.reference_noisy, pair.reference_clean)


@one_thread()
def run_trial(trial: Trial) -> float:
    """Sample noise with the seed of the trial, train a classifier, and return its AUC on the held-out pairs."""
    source, generator = planned_references(*trial.source), load_generator(*trial.generator)

    def sample(pairing: Pairing) -> c2st.Sample:
        pair = read_pair(source, pairing)
        real, clean = central_square(pair.real, _SIDE), central_square(pair.clean, _SIDE)
        seed = derive_seed("c2st", trial.seed, source.references[pairing.target].id)
        prompts = _prompts(trial.generator, trial.source, pairing)
        return c2st.sample(real, generator.sample(clean[None], [prompts], [seed])[0], clean)

    train, held_out = ([sample(p) for p in side] for side in (trial.train, trial.held_out))
    return c2st.c2st_auc(train, held_out, trial.budget, trial.seed, Precision.best(trial.generator[1]))


def evaluate_c2st(
    parameters: C2stParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Measure the AUC of every generator, with mean and standard deviation over seeds.

    Args:
        parameters: Parameters of the test.
        progress: Called with (done, total) classifiers.

    Returns:
        The evaluation record. A record at ``output`` with the same inputs is returned without computing it again.

    Raises:
        UserError: The model or the pairs cannot be used, or no pairs are left to train or test on.
    """
    Precision.best(parameters.device)
    source = open_pairs(parameters.references)
    chosen = select_pairings(
        source,
        parameters.references,
        split=parameters.split,
        camera=parameters.camera,
        protocol=parameters.reference,
        seed=parameters.seed,
    )
    reasons = {p: _too_small(source.references[p.target], p) for p in chosen.found}
    small = [{"id": source.references[p.target].id, "reason": r} for p, r in reasons.items() if r]
    large = tuple(p for p, reason in reasons.items() if reason is None)
    if not large:
        raise UserError(
            f"{parameters.references}: no pair is large enough ({small[0]['id']}: {small[0]['reason']}); "
            "use larger images"
        )
    pairings = evenly_spaced(large, parameters.limit)
    budget = c2st.Budget(parameters.steps, parameters.batch, parameters.average)
    named = generators_by_row(
        parameters.model, parameters.device, baselines=parameters.baselines, compare=parameters.compare
    )
    location = (parameters.references, source.digest)
    digests = {row: name[2] for row, name in named.items()}
    settings = parameters.model_dump(include={"reference", "hold_out", "steps", "batch", "average", "seeds", "seed"})
    facts = [settings, digests, pairings_key(source, pairings), labels_key(source, pairings)]
    key = content_key([*facts, [*chosen.skipped, *small], device_name(parameters.device), evaluation_version()])
    if kept := read_record(parameters.output, key):
        return kept
    seeds = range(parameters.seed, parameters.seed + parameters.seeds)
    sides = {seed: hold_out(source, pairings, parameters.hold_out, seed) for seed in seeds}
    trials = [Trial(row, seed, name, location, *sides[seed], budget) for row, name in named.items() for seed in seeds]
    found: dict[tuple[str, int], float] = {}
    progress(0, len(trials))
    for trial, auc in run_each(parameters.cluster, run_trial, trials):
        found[trial.row, trial.seed] = auc
        progress(len(found), len(trials))
    record = {
        "protocol": f"c2st-{parameters.reference}",
        "pairs": len(pairings),
        "reference_kinds": dict(sorted(Counter(p.kind for p in pairings).items())),
        "skipped": [*chosen.skipped, *small],
        "hold_out": parameters.hold_out,
        "held_out": {str(seed): _held_out_facts(source, rest) for seed, (_, rest) in sides.items()},
        "budget": {name: getattr(parameters, name) for name in ("steps", "batch", "average", "seeds", "seed")},
        "classifier_parameters": sum(p.numel() for p in c2st.Classifier().parameters()),
        "model": {"digest": named["model"][2]},
        "compare": compared_digests(named),
        "references": pairings_key(source, pairings),
        "device": device_name(parameters.device),
        "code": code_version(),
        "metrics": {row: _metrics([found[row, seed] for seed in seeds]) for row in named}
        | {"floor": _metrics([c2st.FLOOR])},
        "simplifications": simplifications({row: load_generator(*name) for row, name in named.items()}),
        KEY: key,
    }
    if parameters.output:
        write_json(parameters.output, record)
    return record


def _metrics(values: list[float]) -> dict[str, Any]:
    """Mean AUC, its standard deviation if there are several seeds, and the value of each seed."""
    deviation = {"auc_spread": stdev(values)} if len(values) > 1 else {}
    return {"auc": fmean(values), **deviation, "auc_by_seed": values}


def _held_out_facts(source: ReferenceSource, pairings: tuple[Pairing, ...]) -> dict[str, Any]:
    references = [source.references[p.target] for p in pairings]
    return {"pairs": len(references), "scenes": sorted({reference.scene for reference in references})}


task_evaluate_c2st = step("evaluate_c2st")(evaluate_c2st)
