"""Memory of the process that makes shards, over short and long runs of the same plan."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch

from benchmarks.corpusbench import Measurements, child, memory, model_name, object_storage, photographs
from tasks.corpus.generate import begin, make_shards
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import plan_corpus

_SIDE = 1024
_SHOWN = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="baseline", help="shipped, baseline, or a bundle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--pairs", type=int, nargs=2, default=(1000, 20000), metavar=("FEW", "MANY"))
    parser.add_argument("--storage", action="store_true", help="write to object storage in the place of a folder")


def measure(options: argparse.Namespace) -> Measurements:
    metrics, found = Measurements(), {}
    with tempfile.TemporaryDirectory() as work, object_storage() if options.storage else nullcontext(work) as location:
        windows = (_SIDE // options.crop) ** 2
        clean = photographs(Path(work) / "clean", -(-max(options.pairs) // windows), _SIDE)
        for pairs in options.pairs:
            sizes = [str(n) for n in (options.crop, options.shard, pairs)]
            arguments = (clean, f"{location}/corpus-{pairs}", model_name(options.model), options.device, *sizes)
            found[pairs] = child("corpus_memory", *arguments)
            steady = median(found[pairs]["rss"][len(found[pairs]["rss"]) // 2 :])
            row = {"pairs": pairs, "shards": len(found[pairs]["rss"]), "steady MB": _mb(steady)}
            metrics.rows.append(row | {"peak MB": _mb(found[pairs]["peak"])})
    few, many = metrics.rows
    for what in ("steady", "peak"):
        grown = many[f"{what} MB"] / few[f"{what} MB"]
        metrics.demand(f"{what}, {many['pairs']} over {few['pairs']} pairs", grown, most=1.05)
    series = found[max(options.pairs)]["rss"]
    shown = [_mb(series[k]) for k in range(0, len(series), max(1, len(series) // _SHOWN))]
    metrics.notes.append(f"resident MB along the long run: {', '.join(map(str, shown))}, last {_mb(series[-1])}")
    return metrics


def _mb(size: float) -> float:
    return round(size / 1e6, 1)


def worker(arguments: Sequence[str]) -> None:
    """What a worker does all day; prints its memory after each shard."""
    torch.set_num_threads(1)
    clean, output, model, device = arguments[:4]
    crop, shard, pairs = map(int, arguments[4:])
    plan = plan_corpus(CorpusParameters(output=output, model=model, device=device, clean=clean, crop=crop, shard=shard))
    begin(plan)
    rss = [memory()[0] for _ in make_shards(plan.tasks(range(-(-pairs // shard))))]
    print(json.dumps({"rss": rss, "peak": memory()[1]}))


if __name__ == "__main__":
    worker(sys.argv[1:])
