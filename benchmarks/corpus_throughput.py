"""Pairs per second from clean files to stored shards, beside what the model alone does in memory."""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.corpusbench import Measurements, model_name, moved, object_storage, photographs
from benchmarks.timing import interleaved_seconds
from tasks.corpus.generate import _generate, _load, _store, begin, make_shards
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import CorpusPlan, plan_corpus
from tasks.models.generators import one_thread
from tasks.stores.io.filesystem import remove

_SIDE = 1024  # of a photograph: as many windows as fit
_LOCAL, _STORAGE, _PLAIN, _MODEL = "local Zarr", "object storage", "local, one after another", "model only"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="shipped", help="shipped, baseline, or a bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--shard", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)


def measure(options: argparse.Namespace) -> Measurements:
    with tempfile.TemporaryDirectory() as work, object_storage() as bucket, one_thread():
        plan = _plan(options, Path(work))
        local = (f"{work}/corpus-{k}" for k in itertools.count())
        remote = (f"{bucket}/corpus-{k}" for k in itertools.count())
        started = time.perf_counter()
        loaded = [_load(work) for work in plan.tasks()]  # also extracts each reference's prompts, once
        loading = time.perf_counter() - started

        def model() -> None:
            for shard in loaded:
                _generate(shard)

        def pipeline(location: str) -> None:
            elsewhere = moved(plan, location)
            assert list(make_shards(elsewhere.tasks())) == list(range(plan.layout.shards))

        def plainly(location: str) -> None:
            for shard in moved(plan, location).tasks():
                _store(_generate(_load(shard)))

        actions: dict[str, Callable[[], object]] = {
            _MODEL: model,
            _LOCAL: lambda: pipeline(_emptied(next(local))),
            _STORAGE: lambda: pipeline(next(remote)),
            _PLAIN: lambda: plainly(_emptied(next(local))),
        }
        seconds = interleaved_seconds(actions, torch.device(options.device), options.rounds)
        before = time.process_time()
        _generate(loaded[0])
        alone = (time.process_time() - before) * len(loaded) / plan.layout.pairs
        before = time.process_time()
        pipeline(_emptied(next(local)))
        whole = (time.process_time() - before) / plan.layout.pairs
        remove(bucket)
    metrics = Measurements()
    for name, values in seconds.items():
        ratio = median(m / s for m, s in zip(seconds[_MODEL], values, strict=True))
        metrics.rows.append({"what": name, "pairs/s": _rate(plan, values), "of the model's": round(ratio, 3)})
    of_model = {row["what"]: row["of the model's"] for row in metrics.rows}
    metrics.demand("local over model", of_model[_LOCAL], least=0.9)
    metrics.demand("object storage over model", of_model[_STORAGE], least=0.8)
    metrics.notes.append(
        f"{plan.layout.pairs} pairs of {options.crop} in shards of {options.shard}; CPU ms/pair: {1000 * whole:.1f} in "
        f"the pipeline, {1000 * alone:.1f} in the model. Prompts were extracted before ({loading:.1f} s with loading)."
    )
    return metrics


def _plan(options: argparse.Namespace, work: Path) -> CorpusPlan:
    side = max(_SIDE, options.crop)
    windows = (side // options.crop) ** 2
    clean = photographs(work / "clean", -(-options.pairs // windows), side)
    parameters = CorpusParameters(
        output=str(work / "planned"),
        model=model_name(options.model),
        device=options.device,
        clean=clean,
        crop=options.crop,
        shard=options.shard,
    )
    plan = plan_corpus(parameters)
    begin(plan)
    return plan


def _emptied(location: str) -> str:
    """``location``, with what earlier rounds left beside it deleted: a benchmark must not fill the disk."""
    for old in Path(location).parent.glob("corpus-*"):
        shutil.rmtree(old)
    return location


def _rate(plan: CorpusPlan, seconds: list[float]) -> float:
    return round(plan.layout.pairs / median(seconds), 2)
