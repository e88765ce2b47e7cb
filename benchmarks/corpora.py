"""Corpora at scale: speed beside the model's, memory, planning, workers, scheduling, requests. Ratios within one run.

.venv/bin/python -m benchmarks.corpora throughput [--model shipped] [--pairs 48] [--rounds 1] [--json results.json]
.venv/bin/python -m benchmarks.corpora {memory,planning,workers,overhead,orchestration,storage} --help
.venv/bin/python -m benchmarks.corpora all

throughput  pairs/s from clean files to stored shards (disk, object storage), and one step after another, over the
            model's own rate on the same patches, prompts and batch in memory
memory      resident and peak memory of a worker over a short and a long run
planning    time and memory to plan 10 million shards of catalogued photographs, and to compute their keys
workers     pairs/s of two Dask workers of one thread each over one
orchestration  time of a whole corpus of 20 shards by the flow over that by the plain functions
overhead    time of the run by Dask and by Prefect's tasks over the plain loop at shards of about a second
storage     requests per shard as an S3 client sends them, and bytes per pair, row and shard on storage

Every process computes with one thread. Without AWS_ENDPOINT_URL, object storage is moto in a process of its own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; worker processes inherit it

import torch

from benchmarks import (
    corpus_memory,
    corpus_orchestration,
    corpus_planning,
    corpus_storage,
    corpus_throughput,
    corpus_workers,
)
from benchmarks.corpusbench import Measurements, show, where

_BENCHMARKS = {
    "throughput": (corpus_throughput.add_options, corpus_throughput.measure),
    "memory": (corpus_memory.add_options, corpus_memory.measure),
    "planning": (corpus_planning.add_options, corpus_planning.measure),
    "workers": (corpus_workers.add_options, corpus_workers.measure_workers),
    "overhead": (corpus_workers.add_overhead_options, corpus_workers.measure_overhead),
    "orchestration": (corpus_orchestration.add_options, corpus_orchestration.measure),
    "storage": (corpus_storage.add_options, corpus_storage.measure),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, (add_options, _) in _BENCHMARKS.items():
        command = commands.add_parser(name)
        add_options(command)
        command.add_argument("--json", type=Path, help="also write the results to this file")
    commands.add_parser("all", help="each with its defaults")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(_BENCHMARKS) if options.benchmark == "all" else [options.benchmark]
    failed = []
    for name in names:
        chosen = parser.parse_args([name]) if options.benchmark == "all" else options
        about = where(getattr(chosen, "device", "cpu"))  # before: the load is that of others
        metrics: Measurements = _BENCHMARKS[name][1](chosen)
        show(name, metrics, about, chosen.json)
        failed += [f"{name}: {v['what']} {v['value']}, wanted {v['wanted']}" for v in metrics.verdicts if not v["met"]]
    print("\nnot met: " + "; ".join(failed) if failed else "\nall that was demanded is met")


if __name__ == "__main__":
    main()
