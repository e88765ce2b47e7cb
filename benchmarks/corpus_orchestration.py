"""What it costs that a whole corpus is made by a flow with its run history, and not by the plain functions."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

import torch

from benchmarks.corpusbench import Measurements, model_name, photographs
from benchmarks.timing import interleaved_seconds
from tasks.corpus.gate import load_rules
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import evaluated_pairs, is_baseline, plan_corpus
from tasks.corpus.publish import judge, publish
from tasks.evaluation.noise import evaluate_noise
from tasks.evaluation.parameters import EvaluateParameters
from tasks.runtime.clusters import open_cluster
from tasks.runtime.parameters import ClusterConfig

_SIDE = 1024
_EVALUATED_PAIRS = 8  # as the flow


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="shipped", help="shipped, baseline, or a bundle")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--shard", type=int, default=16)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)


def _plain(parameters: CorpusParameters) -> None:
    """All that the flow does to data, by the functions that its tasks wrap."""
    rules = load_rules(parameters.gate, baseline=is_baseline(parameters))
    plan = plan_corpus(parameters)
    make_corpus_shards(plan)
    with open_cluster(ClusterConfig()) as cluster:
        judged = judge(plan, rules, cluster)
    pairs = evaluated_pairs(plan)
    evaluation = evaluate_noise(EvaluateParameters(model=parameters.model, limit=_EVALUATED_PAIRS, **pairs))
    publish(plan, judged, evaluation)


def measure(options: argparse.Namespace) -> Measurements:
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect.testing.utilities import prefect_test_harness

    from flows.generate_synthetic_corpus import generate_synthetic_corpus

    metrics = Measurements()
    with tempfile.TemporaryDirectory() as work, prefect_test_harness(server_startup_timeout=120):
        pairs, windows = options.shard * options.shards, (_SIDE // options.crop) ** 2
        clean = photographs(Path(work) / "clean", -(-pairs // windows), _SIDE)
        made = 0

        def parameters() -> CorpusParameters:
            nonlocal made
            made += 1
            return CorpusParameters(
                output=f"{work}/{made}",
                model=model_name(options.model),
                clean=clean,
                crop=options.crop,
                shard=options.shard,
                override_gate="benchmark",
            )

        actions = {
            "plain functions": lambda: _plain(parameters()),
            "flow": lambda: generate_synthetic_corpus(parameters()),
        }
        seconds = interleaved_seconds(actions, torch.device("cpu"), options.rounds)
    plain = seconds["plain functions"]
    for name, values in seconds.items():
        over = median(s / p for s, p in zip(values, plain, strict=True)) - 1
        row = {"what": name, "seconds": round(median(values), 2), "by round": [round(s, 2) for s in values]}
        metrics.rows.append(row | {"over the functions": f"{100 * over:+.2f} %"})
    metrics.demand("flow over plain functions", over, most=0.05)
    metrics.notes.append(
        f"{options.shards} shards of {options.shard} pairs of {options.crop} x {options.crop}, from plan to report. "
        "The server is a process of its own on the same cores. A run of a deployment also waits until its worker asks "
        "(every 5 s in the one-machine stack) and for its process to import the program (4 to 6 s)."
    )
    return metrics
