"""What a corpus asks of storage: requests by kind as they leave the process, and bytes per pair, row and shard."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpusbench import Measurements, model_name, object_storage, photographs
from tasks.corpus.gate import load_rules
from tasks.corpus.generate import begin, make_pending, pending
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import CorpusPlan, evaluated_pairs, plan_corpus
from tasks.corpus.publish import judge, publish
from tasks.evaluation.noise import evaluate_noise
from tasks.evaluation.parameters import EvaluateParameters
from tasks.runtime.clusters import open_cluster
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.commits import part_name
from tasks.stores.corpus_store import manifest_name, manifest_shards, shards_name
from tasks.stores.io.filesystem import file_size, join, read_bytes
from tasks.stores.layout import ARRAYS

_SIDE = 1024
_KINDS = ("PUT", "GET", "HEAD", "LIST", "DELETE", "other")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--crop", type=int, default=64, help="of the corpus whose requests and rows are counted")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--shard", type=int, default=256)
    parser.add_argument("--pixels", type=int, default=16, help="pairs of 256 x 256 by --model for bytes of pixels")
    parser.add_argument("--model", default="shipped", help="whose pixels: shipped, baseline, or a bundle")


def measure(options: argparse.Namespace) -> Measurements:
    metrics = Measurements()
    with tempfile.TemporaryDirectory() as work, object_storage() as bucket:
        windows = (_SIDE // options.crop) ** 2
        clean = photographs(Path(work) / "clean", -(-options.shards * options.shard // windows), _SIDE)
        common = {"model": model_name("baseline"), "clean": clean, "crop": options.crop, "shard": options.shard}
        plan = plan_corpus(CorpusParameters(output=f"{bucket}/corpus", **common))
        _requests(plan, metrics)
        _rows(plan, metrics)
        whole = photographs(Path(work) / "few", -(-options.pixels // (_SIDE // 256) ** 2), _SIDE)
        few = CorpusParameters(
            output=f"{work}/pixels", model=model_name(options.model), clean=whole, shard=options.pixels
        )
        _pixels(plan_corpus(few), metrics)
    return metrics


def _requests(plan: CorpusPlan, metrics: Measurements) -> None:
    """Run every phase of a corpus on object storage; a row for each."""
    todo: list[int] = []
    rules = load_rules("default", baseline=True)
    measured = EvaluateParameters(model=plan.parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
    evaluation = evaluate_noise(measured)
    shards = range(plan.layout.shards)
    by_sizes = _with(plan, check="sizes")
    with open_cluster(ClusterConfig()) as inline:
        judged: list[Any] = []
        phases: dict[str, Callable[[], object]] = {
            "begin": lambda: begin(plan),
            "what is missing, nothing there": lambda: todo.extend(pending(plan, inline)),
            "shards": lambda: make_pending(plan, shards, inline),
            "what is missing, checksums": lambda: pending(plan, inline),
            "what is missing, sizes": lambda: pending(by_sizes, inline),
            "manifest and gate": lambda: judged.append(judge(plan, rules, inline)),
            "publish": lambda: publish(plan, judged[0], evaluation),
        }
        for name, phase in phases.items():
            with _counted() as counts:
                phase()
            row = {"phase": name} | {kind: counts[kind] for kind in _KINDS if kind != "other" or counts[kind]}
            metrics.rows.append(row | {"per shard": round(counts.total() / plan.layout.shards, 2)})
    assert todo == list(shards)


def _with(plan: CorpusPlan, **changes: Any) -> CorpusPlan:
    return replace(plan, job=replace(plan.job, parameters=plan.parameters.model_copy(update=changes)))


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """HTTP requests that leave this process, retries too."""
    from aiobotocore.httpsession import AIOHTTPSession

    counts: Counter[str] = Counter()
    original = AIOHTTPSession.send

    async def send(self: Any, request: Any) -> Any:
        kind = "LIST" if request.method == "GET" and "list-type=2" in request.url else request.method
        counts[kind if kind in _KINDS else "other"] += 1
        return await original(self, request)

    AIOHTTPSession.send = send
    try:
        yield counts
    finally:
        AIOHTTPSession.send = original


def _rows(plan: CorpusPlan, metrics: Measurements) -> None:
    """Bytes of a row in the parts, the manifest and the table of shards, and which columns they are."""
    url, layout = plan.parameters.output, plan.layout
    parts = sum(file_size(join(url, part_name(k))) for k in range(layout.shards))
    numbers = range(len(manifest_shards(layout)))
    manifest, shards = (sum(file_size(join(url, name(k))) for k in numbers) for name in (manifest_name, shards_name))
    found = {
        "bytes/row, parts": parts / layout.pairs,
        "bytes/row, manifest": manifest / layout.pairs,
        "bytes/row, tables of shards": shards / layout.shards,
    }
    metrics.notes += [f"{name}: {value:.1f} (shards of {layout.shard} pairs)" for name, value in found.items()]
    by_column: Counter[str] = Counter()
    metadata = pq.ParquetFile(pa.BufferReader(read_bytes(join(url, manifest_name(0))))).metadata
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            by_column[column.path_in_schema] += column.total_compressed_size
    shown = ", ".join(f"{name} {size / metadata.num_rows:.1f}" for name, size in by_column.most_common(8))
    metrics.notes.append(f"of the manifest's row: {shown}")


def _pixels(plan: CorpusPlan, metrics: Measurements) -> None:
    """Stored bytes of an image of each array."""
    with open_cluster(ClusterConfig()) as inline:
        begin(plan)
        make_pending(plan, range(plan.layout.shards), inline)
    raw = plan.layout.bytes_per_image
    for array in ARRAYS:
        stored = sum(
            file_size(join(plan.parameters.output, plan.layout.objects(k)[array])) for k in range(plan.layout.shards)
        )
        each = stored / plan.layout.pairs
        metrics.notes.append(f"bytes/image, {array}, 256 x 256 x 3, {plan.parameters.model}: {each:.0f} of {raw}")
