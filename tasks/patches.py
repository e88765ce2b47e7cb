"""Patch extraction: catalogued pairs -> a sharded patch store, one task per shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from pngmodel.errors import IntegrityError, UserError
from tasks.clusters import ClusterConfig, run_each
from tasks.datasets.records import PAIR_COLUMNS
from tasks.ingest import load_catalogue, read_catalogued
from tasks.provenance import packages
from tasks.stores.filesystem import sha256
from tasks.stores.patches import COMMIT, SCHEMA, writer
from tasks.stores.shards import Layout, Pixels

_DEFAULT_SHARD = 64
_NO_IMAGE: Pixels = np.empty((0, 0, 0), np.uint8)


@dataclass(frozen=True)
class Window:
    """One patch: a row of the catalogue and the corner of a square in it."""

    row: int
    y: int
    x: int


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard."""

    url: str
    catalogue: str
    index: int
    layout: Layout
    recipe: tuple[tuple[str, Any], ...]
    windows: tuple[Window, ...]


def corners(length: int, size: int, stride: int) -> list[int]:
    """First pixels of windows along one side; the last window is flush with the border (as SIDD is cropped)."""
    if length < size:
        return []
    found = list(range(0, length - size + 1, stride))
    return found if found[-1] == length - size else [*found, length - size]


def plan(table: pa.Table, size: int, stride: int) -> tuple[list[Window], list[dict[str, str]]]:
    """Windows of all pairs in catalogue order, and the pairs that are too small."""
    windows, rejected = [], []
    for row, (pair, height, width) in enumerate(
        zip(*(table.column(name).to_pylist() for name in ("pair", "height", "width")), strict=True)
    ):
        ys, xs = corners(height, size, stride), corners(width, size, stride)
        if not (ys and xs):
            rejected.append({"id": pair, "reason": f"{height} x {width} pixels is smaller than the patch size {size}"})
        windows += [Window(row, y, x) for y in ys for x in xs]
    return windows, rejected


def extract_patches(
    catalogue: str,
    output: str,
    *,
    size: int = 256,
    stride: int | None = None,
    shard: int = _DEFAULT_SHARD,
    cluster: ClusterConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Make (or finish) the patch store at ``output``; returns patches, shards, rejected and digest.

    Raises:
        UserError: no catalogue, mixed channels or dtypes, no patch fits, or the output is another store.
    """
    table, catalogue_digest = load_catalogue(catalogue)
    kinds = sorted({tuple(r.values()) for r in table.select(["channels", "dtype"]).to_pylist()})
    if len(kinds) != 1:
        raise UserError(f"{catalogue}: holds images of several kinds {kinds} (channels, dtype); ingest them apart")
    (channels, dtype), stride = kinds[0], stride or size
    windows, rejected = plan(table, size, stride)
    if not windows:
        raise UserError(f"{catalogue}: no image holds a patch of {size} x {size}; choose a smaller --size")
    layout = Layout(len(windows), shard, channels, size, size, dtype)
    recipe = {"catalogue": catalogue_digest, "size": size, "stride": stride}
    store = writer(output, layout, recipe)
    store.prepare()
    todo = [
        ShardTask(output, catalogue, i, layout, tuple(recipe.items()), tuple(windows[k] for k in layout.rows(i)))
        for i in range(layout.shards)
        if not store.done(i)
    ]
    finished = layout.shards - len(todo)
    progress(finished, layout.shards)
    for _ in run_each(cluster or ClusterConfig(kind="inline"), extract_shard, todo):
        finished += 1
        progress(finished, layout.shards)
    licence = "; ".join(sorted(set(table.column("licence").to_pylist())))
    record = {
        "format": "pngnoise-patches",
        "format_version": 1,
        "recipe": recipe,
        "licence": licence,
        "rejected": rejected,
        "packages": packages(),
    }
    digest = store.commit(COMMIT, record)
    return {
        "patches": layout.pairs,
        "shards": layout.shards,
        "made": len(todo),
        "rejected": rejected,
        "digest": digest,
        "store": output,
    }


@lru_cache(maxsize=4)
def _rows(catalogue: str, digest: str) -> list[dict[str, Any]]:
    table, found = load_catalogue(catalogue)
    if found != digest:
        raise IntegrityError(f"{catalogue}: changed while patches were cut from it; run the same command again")
    return table.to_pylist()  # type: ignore[no-any-return]


def extract_shard(work: ShardTask) -> int:
    """Cut and publish one shard; returns its index. Images are read once, as windows come in catalogue order."""
    rows = _rows(work.catalogue, dict(work.recipe)["catalogue"])
    cleans, noisies, records = [], [], []
    current, images = -1, (_NO_IMAGE, _NO_IMAGE)
    for number, window in zip(work.layout.rows(work.index), work.windows, strict=True):
        row = rows[window.row]
        if window.row != current:
            images = (_channels_first(row, "clean"), _channels_first(row, "noisy"))
            current = window.row
        square = np.s_[:, window.y : window.y + work.layout.height, window.x : window.x + work.layout.width]
        clean, noisy = (np.ascontiguousarray(image[square]) for image in images)
        cleans.append(clean)
        noisies.append(noisy)
        records.append(_describe(number, row, window, clean, noisy))
    store = writer(work.url, work.layout, dict(work.recipe))
    store.write(work.index, np.stack(cleans), np.stack(noisies), pa.Table.from_pylist(records, SCHEMA))
    return work.index


def _channels_first(row: dict[str, Any], side: str) -> Pixels:
    return np.moveaxis(read_catalogued(row, side), -1, 0)


def _describe(number: int, row: dict[str, Any], window: Window, clean: Pixels, noisy: Pixels) -> dict[str, Any]:
    peak = np.iinfo(clean.dtype).max
    noise = (noisy.astype(np.float64) - clean) / peak
    return {
        **{name: row[name] for name, _ in PAIR_COLUMNS},
        "patch": number,
        "y": window.y,
        "x": window.x,
        "clean_mean": float(clean.mean() / peak),
        "noise_mean": float(noise.mean()),
        "noise_std": float(noise.std()),
        "sha256": sha256(clean.tobytes() + noisy.tobytes()),
    }


task_extract_patches = task(cache_policy=NO_CACHE, name="extract_patches")(extract_patches)
