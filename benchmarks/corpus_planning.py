"""Time and memory to plan millions of shards. No pixel exists: a catalogue says how large photographs are."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.corpusbench import Measurements, child, memory
from tasks.corpus.generate import begin
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import plan_corpus
from tasks.datasets.catalogue import COMMIT, SCHEMA, TABLE
from tasks.stores.corpus_store import writer
from tasks.stores.io.filesystem import sha256, write_bytes, write_json
from tasks.stores.io.tables import encode_table

_CROP, _STRIDE, _WINDOWS = 256, 128, 40  # along a side
_SIDE = _CROP + (_WINDOWS - 1) * _STRIDE


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photographs", type=int, default=100_000, help=f"each has {_WINDOWS**2} windows")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--shard", type=int, default=64)


def measure(options: argparse.Namespace) -> Measurements:
    with tempfile.TemporaryDirectory() as work:
        catalogue(work + "/catalogue", options.photographs)
        found = child("corpus_planning", work, str(options.scale), str(options.shard))
    metrics = Measurements()
    for what, value in found["seconds"].items():
        metrics.rows.append({"what": what, "seconds": round(value, 3)})
    whole = sum(found["seconds"][name] for name in ("plan", "keys of all shards"))
    metrics.demand(f"seconds to plan {found['shards']} shards and compute their keys", whole, most=60)
    metrics.demand("peak GB of that process", found["peak"] / 1e9, most=1)
    metrics.notes.append(
        f"{found['pairs']} pairs; {found['imported'] / 1e6:.0f} MB are the imported program; clean.parquet has "
        f"{found['clean_bytes'] / options.photographs:.0f} bytes per photograph; peak with the corpus begun "
        f"{found['peak started'] / 1e6:.0f} MB"
    )
    return metrics


def catalogue(url: str, photographs: int) -> None:
    """A catalogue of photographs that are not there; their digests are as unlike each other as real ones."""
    names = [f"photograph-{k:08d}" for k in range(photographs)]
    everywhere = {
        **{"dataset": "planned", "scene": "none", "camera": None, "iso": None, "split": "train", "licence": "CC0"},
        **{"height": _SIDE, "width": _SIDE, "channels": 3, "dtype": "uint8", "data_range": 255.0},
    }
    columns: dict[str, Any] = {name: [value] * photographs for name, value in everywhere.items()}
    columns |= {"pair": names, "clean": [f"/nowhere/{name}.png" for name in names]}
    columns |= {"clean_sha256": [sha256(name.encode()) for name in names]}
    empty = {field.name: pa.nulls(photographs, field.type) for field in SCHEMA}
    typed = {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    content = encode_table(pa.table(empty | typed, schema=SCHEMA))
    record = {
        **{"format": "pngnoise-catalogue", "format_version": 2, "source": "nowhere", "adapter": "planned"},
        **{"pairs": photographs, "rejected": 0, "ignored": 0, "packages": {}},
        **{"table_sha256": sha256(content), "digest": sha256(content)},
    }
    write_bytes(f"{url}/{TABLE}", content)
    write_json(f"{url}/{COMMIT}", record)


def worker(arguments: Sequence[str]) -> None:
    """Plan, compute keys, look at single shards; prints seconds and memory."""
    work, scale, shard = arguments[0], int(arguments[1]), int(arguments[2])
    imported, seconds = memory()[0], {}
    parameters = CorpusParameters(
        output=f"{work}/corpus", clean=f"{work}/catalogue", crop=_CROP, stride=_STRIDE, scale=scale, shard=shard
    )
    started = time.perf_counter()
    plan = plan_corpus(parameters)
    seconds["plan"] = time.perf_counter() - started

    started = time.perf_counter()
    store = writer(parameters.output, plan.layout, plan.recipe)
    for index in range(plan.layout.shards):
        store.part_key(index)
    seconds["keys of all shards"] = time.perf_counter() - started
    peak = memory()[1]

    middle = plan.layout.shards // 2
    started = time.perf_counter()
    for index in range(middle, middle + 100):
        assert len(plan.task(index).samples) == shard
    seconds["work and samples of one shard"] = (time.perf_counter() - started) / 100

    started = time.perf_counter()
    begin(plan)
    seconds["begin (clean.parquet, plan.json)"] = time.perf_counter() - started
    started = time.perf_counter()
    plan_corpus(parameters)
    seconds["plan again, from the survey beside the corpus"] = time.perf_counter() - started
    found = {"seconds": seconds, "peak": peak, "peak begun": memory()[1], "imported": imported}
    found |= {"shards": plan.layout.shards, "pairs": plan.layout.pairs}
    print(json.dumps(found | {"clean_bytes": (Path(work) / "corpus" / "clean.parquet").stat().st_size}))


if __name__ == "__main__":
    worker(sys.argv[1:])
