"""What more workers bring, and what it costs that others than a plain loop hand out the work."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import torch

from benchmarks.corpusbench import Measurements, model_name, moved, photographs
from benchmarks.timing import interleaved_seconds
from tasks.corpus import generate as shards
from tasks.corpus.generate import begin, make_batch, make_pending, make_shards
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import CorpusPlan, plan_corpus
from tasks.runtime.clusters import Cluster, open_cluster
from tasks.runtime.parameters import ClusterConfig

_SIDE = 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="shipped", help="shipped, baseline, or a bundle")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--shard", type=int, default=4)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)


def add_overhead_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--seconds", type=float, default=1.0, help="that the device takes for a shard")
    parser.set_defaults(model="baseline", crop=64, shard=64, shards=60, workers=1)


@contextmanager
def _planned(options: argparse.Namespace) -> Iterator[tuple[CorpusPlan, Iterator[str]]]:
    """A plan, and places for corpora; a place is emptied when the next is asked for."""
    with tempfile.TemporaryDirectory() as work:
        pairs, windows = options.shard * options.shards, (_SIDE // options.crop) ** 2
        parameters = CorpusParameters(
            output=f"{work}/planned",
            model=model_name(options.model),
            clean=photographs(Path(work) / "clean", -(-pairs // windows), _SIDE),
            crop=options.crop,
            shard=options.shard,
        )
        plan = plan_corpus(parameters)
        begin(plan)

        def locations() -> Iterator[str]:
            for k in itertools.count():
                yield f"{work}/corpus-{k}"
                shutil.rmtree(f"{work}/corpus-{k}", ignore_errors=True)

        yield plan, locations()


def _warmed(plan: CorpusPlan, cluster: Cluster, location: str) -> None:
    """Every worker has imported the program, loaded the model and extracted the prompts; not a part of a long run."""
    tasks = list(moved(plan, location).tasks(range(min(2, plan.layout.shards))))
    list(cluster.run_each(make_batch, [tuple(tasks)] * cluster.workers * 4))


def measure_workers(options: argparse.Namespace) -> Measurements:
    metrics = Measurements()
    with _planned(options) as (plan, locations), ExitStack() as opened:
        indices = range(options.shards)
        clusters = {
            n: opened.enter_context(open_cluster(ClusterConfig(kind="local", workers=n))) for n in (1, options.workers)
        }
        for cluster in clusters.values():
            _warmed(plan, cluster, next(locations))
            _warmed(plan, cluster, next(locations))

        def warm(n: int) -> Callable[[], object]:
            return lambda: make_pending(moved(plan, next(locations)), indices, clusters[n])

        def cold(n: int) -> None:
            with open_cluster(ClusterConfig(kind="local", workers=n)) as cluster:
                make_pending(moved(plan, next(locations)), indices, cluster)

        actions = {f"{n} workers": warm(n) for n in clusters}
        seconds = interleaved_seconds(actions, torch.device("cpu"), options.rounds)
        opened.close()
        for n in clusters:
            started = time.perf_counter()
            cold(n)
            seconds[f"{n} workers, start-up included"] = [time.perf_counter() - started]
    for name, values in seconds.items():
        rate = plan.layout.pairs / median(values)
        metrics.rows.append({"what": name, "seconds": round(median(values), 2), "pairs/s": round(rate, 2)})
    one, more = seconds["1 workers"], seconds[f"{options.workers} workers"]
    ratio = median(a / b for a, b in zip(one, more, strict=True))
    metrics.demand(f"{options.workers} workers over 1", ratio, least=0.9 * options.workers)
    metrics.notes.append(
        f"{os.cpu_count()} cores; {plan.layout.pairs} pairs in {options.shards} shards. The two ends of a run are in "
        "it: workers wait for the last stretch, so that short runs show less."
    )
    return metrics


def measure_overhead(options: argparse.Namespace) -> Measurements:
    metrics = Measurements()
    with _planned(options) as (plan, locations), ExitStack() as opened:
        indices = list(range(options.shards))
        dask = opened.enter_context(open_cluster(ClusterConfig(kind="local", workers=options.workers)))
        _warmed(plan, dask, next(locations))
        dask._client.run(_device_takes, options.seconds)  # type: ignore[attr-defined]
        _device_takes(options.seconds)
        in_flow = opened.enter_context(_prefect())
        actions: dict[str, Callable[[], object]] = {
            "plain loop": lambda: list(make_shards(moved(plan, next(locations)).tasks(indices))),
            "Dask, 1 worker": lambda: make_pending(moved(plan, next(locations)), indices, dask),
            "Prefect, inline": lambda: in_flow(moved(plan, next(locations))),
        }
        seconds = interleaved_seconds(actions, torch.device("cpu"), options.rounds)
    plain = seconds["plain loop"]
    for name, values in seconds.items():
        over = median(s / p for s, p in zip(values, plain, strict=True)) - 1
        row = {"what": name, "seconds": round(median(values), 2), "per shard": round(median(values) / len(indices), 3)}
        metrics.rows.append(row | {"over the loop": f"{100 * over:+.2f} %"})
        if name != "plain loop":
            metrics.demand(f"{name}: share of the run", over, most=0.02)
    metrics.notes.append(
        f"{options.shards} shards of {options.shard} pairs whose device takes {options.seconds:g} s each and leaves "
        "the cores alone, as a GPU does; loading and storing are real. Its ends count: more shards, less share."
    )
    return metrics


def _device_takes(seconds: float) -> None:
    """From now on the drawing of a shard takes at least so long in this process, most of it asleep: what is measured
    is what others add, and neither the model nor who else uses the cores."""
    repeat = getattr(shards, "_generaten_at_once", shards._generate)
    shards._generaten_at_once = repeat  # type: ignore[attr-defined]

    def slowly(loaded: shards._Loaded) -> shards._Generated:
        until = time.monotonic() + seconds
        drawn = repeat(loaded)
        time.sleep(max(0.0, until - time.monotonic()))
        return drawn

    shards._generate = slowly


@contextmanager
def _prefect() -> Iterator[Callable[[CorpusPlan], object]]:
    """What the flow does between plan and publication, in a flow run on a server of its own; the run is not timed."""
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect import flow
    from prefect.testing.utilities import prefect_test_harness

    from flows.generate_synthetic_corpus import _generate

    @flow(persist_result=False)
    def whole(location: str) -> None:
        with open_cluster(ClusterConfig()) as inline:
            _generate(moved(whole.plan, location), inline)  # type: ignore[attr-defined]

    def run(plan: CorpusPlan) -> None:
        whole.plan = plan  # type: ignore[attr-defined]  # not a parameter: Prefect would look into it
        whole(plan.parameters.output)

    with prefect_test_harness(server_startup_timeout=120):
        yield run
