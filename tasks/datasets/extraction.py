"""Patch extraction from catalogued images into a sharded patch store.

A task is a batch of consecutive catalogue rows whose patches fill whole shards: many small images in one shard, or one
large image in several. No two tasks write the same shard, and the last shard of a task is padded. A process that runs
consecutive tasks decodes shared images (the clean image of repeats) once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, repeat, takewhile
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pngmodel.errors import IntegrityError, UserError
from tasks.datasets import patch_statistics
from tasks.datasets.catalogue import COMMIT as CATALOGUE
from tasks.datasets.catalogue import load_catalogue, read_catalogued
from tasks.datasets.parameters import Geometry, Selection
from tasks.runtime.clusters import run_each
from tasks.runtime.parameters import ClusterConfig
from tasks.runtime.parts import parse_parts
from tasks.runtime.steps import step
from tasks.stores.commits import part_name, refuse_missing
from tasks.stores.io.filesystem import exists, join, read_json
from tasks.stores.layout import ARRAYS, Layout, peak
from tasks.stores.patch_store import COMMIT, KIND, PAIR_COLUMNS, schema
from tasks.stores.records import PatchStoreRecord
from tasks.stores.shard_file import Pixels
from tasks.stores.writer import ShardWriter

PRESETS = {"sidd-512": (512, 384), "sidd-256": (256, 256)}
"""(size, stride) by name: the usual patches of SIDD for training, with and without overlap."""
_SHARD = 64
_INLINE = ClusterConfig(kind="inline")
Progress = Callable[[int, int], None]
Shared = TypeVar("Shared")


def resolved(geometry: Geometry) -> tuple[int, int]:
    """Return (size, stride) in pixels.

    Raises:
        UserError: The preset is unknown, or combined with size or stride.
    """
    if geometry.preset is None:
        size = geometry.size or PRESETS["sidd-256"][0]
        return size, geometry.stride or size
    if geometry.preset not in PRESETS:
        raise UserError(
            f"--preset {geometry.preset!r} does not exist; choose one of {', '.join(PRESETS)}, or set size and stride"
        )
    if geometry.size or geometry.stride:
        raise UserError(f"--preset {geometry.preset!r} sets size and stride; set either the preset or these")
    return PRESETS[geometry.preset]


def _selected(rows: list[dict[str, Any]], wanted: dict[str, Any], catalogue: str) -> list[dict[str, Any]]:
    """Return the rows with these values.

    Raises:
        UserError: No row matches; lists the available values.
    """
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    if not found:
        if not wanted:
            raise UserError(f"{catalogue}: the catalogue is empty; ingest a dataset first")
        available = "; ".join(f"{name}: {sorted({str(row[name]) for row in rows})}" for name in wanted)
        described = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
        raise UserError(f"{catalogue}: no image has {described}; available values: {available}")
    return found


@dataclass(frozen=True)
class ShardBatch:
    """Range of usable catalogue rows, and range of the shards that their patches fill (end excluded)."""

    rows: tuple[int, int]
    shards: tuple[int, int]


@dataclass(frozen=True)
class ShardBatchTask:
    """Task of a worker: one batch of shards. Sizes and recipe are in the plan of the store."""

    url: str
    key: str
    catalogue: str
    table_sha256: str | None
    batch: ShardBatch


def corners(length: int, size: int, stride: int) -> list[int]:
    """Return the first pixels of the crops along one side; the last crop ends at the border (as in SIDD)."""
    if length < size:
        return []
    found = list(range(0, length - size + 1, stride))
    return found if found[-1] == length - size else [*found, length - size]


def _windows(row: dict[str, Any], size: int, stride: int) -> list[tuple[int, int]]:
    """Return (y, x) of all patches of an image."""
    ys, xs = corners(row["height"], size, stride), corners(row["width"], size, stride)
    return [(y, x) for y in ys for x in xs]


def pack(counts: Sequence[int], shard: int) -> tuple[list[ShardBatch], tuple[int, ...]]:
    """Distribute patches over shards.

    Args:
        counts: Number of patches of each image.
        shard: Maximum number of patches per shard.

    Returns:
        Batches of shards, and the number of patches of each shard.
    """
    batches: list[ShardBatch] = []
    filled: list[int] = []

    def close(start: int, stop: int, patches: int) -> None:
        before = len(filled)
        filled.extend([shard] * (patches // shard) + ([patches % shard] if patches % shard else []))
        batches.append(ShardBatch((start, stop), (before, len(filled))))

    start = patches = 0
    for row, count in enumerate(counts):
        if patches and patches + count > shard:
            close(start, row, patches)
            start, patches = row, 0
        patches += count
    if patches:
        close(start, len(counts), patches)
    return batches, tuple(filled)


def share(units: Sequence[Shared], parts: str | None) -> Sequence[Shared]:
    """Return the units of part i of n (``"i/n"``), contiguous, so that few parts open each container file.

    Raises:
        UserError: ``parts`` is invalid.
    """
    part, of = parse_parts(parts) if parts is not None else (1, 1)
    return units[len(units) * (part - 1) // of : len(units) * part // of]


def extract_patches(
    catalogue: str,
    output: str,
    *,
    geometry: Geometry | None = None,
    shard: int = _SHARD,
    select: Selection | None = None,
    parts: str | None = None,
    cluster: ClusterConfig = _INLINE,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Create or resume the patch store at ``output``, or with ``parts`` one part of it.

    Args:
        catalogue: Folder or URL of a catalogue.
        output: Folder or URL of the patch store.
        geometry: Size and stride of patches.
        shard: Maximum number of patches per shard.
        select: Filter of catalogue rows.
        parts: ``"i/n"``: process only part i of n; call :func:`finalise` after all parts.
        cluster: Cluster.
        progress: Called with (done, total) shards.

    Returns:
        Patches and shards (of the part), number of newly written shards, rejected images, and without ``parts`` the
        digest of the store.

    Raises:
        UserError: There is no catalogue, images differ in kind, no image is large enough, or the output is another
            store.
    """
    size, stride = resolved(geometry or Geometry())
    table_sha256 = _table_sha256(catalogue)
    table, digest = load_catalogue(catalogue)
    recipe = {
        "catalogue": digest,
        "size": size,
        "stride": stride,
        "select": (select or Selection()).model_dump(include=set(Selection.model_fields), exclude_none=True),
    }
    rows, rejected = _usable(table.to_pylist(), recipe, catalogue)
    batches, filled = pack([len(_windows(row, size, stride)) for row in rows], shard)
    selected = share(batches, parts)
    layout = Layout(
        sum(filled), shard, rows[0]["channels"], size, size, rows[0]["dtype"], _sides(rows[0]), tuple(filled)
    )
    store = ShardWriter(output, KIND, layout, recipe, {"rejected": rejected})
    store.prepare()
    total, finished, made = sum(batch.shards[1] - batch.shards[0] for batch in selected), 0, 0
    progress(finished, total)
    todo = [ShardBatchTask(output, store.key, catalogue, table_sha256, batch) for batch in selected]
    for task, count in run_each(cluster, make_shards, todo):
        finished += task.batch.shards[1] - task.batch.shards[0]
        made += count
        progress(finished, total)
    result = {
        "patches": sum(sum(filled[slice(*batch.shards)]) for batch in selected),
        "shards": total,
        "made": made,
        "rejected": rejected,
        "store": output,
    }
    # publish without checking the shards: all were just written or checked
    return result | ({"parts": parts} if parts else {"digest": publish(store)})


def _sides(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(side for side in ARRAYS if row[side] is not None)


def _usable(
    rows: list[dict[str, Any]], recipe: dict[str, Any], catalogue: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the selected rows, and the rejected ones that are too small. Called by the planning run and by workers."""
    chosen = _selected(rows, recipe["select"], catalogue)
    kinds = Counter((row["channels"], row["dtype"], " and ".join(_sides(row))) for row in chosen)
    if len(kinds) > 1:
        described = "; ".join(f"{n} of {c} x {dtype} ({sides})" for (c, dtype, sides), n in sorted(kinds.items()))
        raise UserError(
            f"{catalogue}: contains images of several kinds: {described}. Select one kind with --channels, --dtype, "
            "--split or --camera; ingest pairs and single images separately"
        )
    size = recipe["size"]
    usable, rejected = [], []
    for row in chosen:
        if _windows(row, size, recipe["stride"]):
            usable.append(row)
        else:
            reason = f"the image has {row['height']} x {row['width']} pixels, less than the patch size {size}"
            rejected.append({"id": row["pair"], "reason": reason})
    if not usable:
        raise UserError(f"{catalogue}: no image is as large as a patch of {size} x {size}; use a smaller --size")
    return usable, rejected


def _table_sha256(catalogue: str) -> str | None:
    """Return the SHA-256 of the catalogue table, which unlike the catalogue digest covers file locations."""
    location = join(catalogue, CATALOGUE)
    return read_json(location).get("table_sha256") if exists(location) else None


@lru_cache(maxsize=4)
def _planned(url: str, key: str, catalogue: str, table_sha256: str | None) -> tuple[ShardWriter, list[dict[str, Any]]]:
    """Open a planned store and the catalogue rows that it uses; cached per process."""
    store = ShardWriter.planned(url)
    table, digest = load_catalogue(catalogue)
    if (store.key, digest, _table_sha256(catalogue)) != (key, store.recipe["catalogue"], table_sha256):
        raise IntegrityError(f"{catalogue}: has changed since this run was planned; run the same command again")
    return store, _usable(table.to_pylist(), store.recipe, catalogue)[0]


def make_shards(task: ShardBatchTask) -> int:
    """Extract and publish the missing or damaged shards of a batch; return their number."""
    store, rows = _planned(task.url, task.key, task.catalogue, task.table_sha256)
    indices = range(*task.batch.shards)
    missing = [index for index in indices if not store.done(index)]
    if not missing:
        return 0
    patches = _patches(rows, task.batch, store)
    for index in indices:
        of_shard = islice(patches, len(store.layout.rows(index)))
        if index in missing:
            _write_shard(store, index, of_shard)
        else:
            deque(of_shard, maxlen=0)  # skip
    return len(missing)


def _patches(
    rows: list[dict[str, Any]], batch: ShardBatch, store: ShardWriter
) -> Iterator[tuple[dict[str, Any], int, int, dict[str, Pixels]]]:
    """Yield (row, y, x, images) of every patch in order, with one image or pair in memory at a time."""
    size, stride = store.recipe["size"], store.recipe["stride"]
    readers = {side: _images(rows, batch, side) for side in store.layout.arrays}
    for row in rows[slice(*batch.rows)]:
        whole = {side: np.moveaxis(next(reader), -1, 0) for side, reader in readers.items()}
        for y, x in _windows(row, size, stride):
            square = np.s_[:, y : y + size, x : x + size]
            yield row, y, x, {side: np.ascontiguousarray(image[square]) for side, image in whole.items()}


_last_images: dict[str, tuple[str, Pixels]] = {}
"""Digest and pixels, by side, of the last image of a batch if the next batch starts with the same image."""


def _images(rows: list[dict[str, Any]], batch: ShardBatch, side: str) -> Iterator[Pixels]:
    """Yield the images of a batch. An image shared with the previous batch is not decoded again."""
    start, stop = batch.rows
    digests = [row[f"{side}_sha256"] for row in rows[start : stop + 1]]
    digest, image = _last_images.pop(side, ("", np.empty(0)))
    repeated = sum(1 for _ in takewhile(lambda other: other == digest, digests[: stop - start]))
    images = chain(repeat(image, repeated), read_catalogued(rows[start + repeated : stop], side))
    for number, image in enumerate(images):
        if start + number + 1 == stop and digests[number + 1 :] == [digests[number]]:
            _last_images[side] = digests[number], image
        yield image


def _write_shard(
    store: ShardWriter, index: int, patches: Iterator[tuple[dict[str, Any], int, int, dict[str, Pixels]]]
) -> None:
    """Encode and publish patches one by one, so that only their compressed form is in memory."""
    layout, codec = store.layout, store.layout.codec
    chunks: dict[str, list[bytes]] = {side: [] for side in layout.arrays}
    records, sums = [], []
    for number, (row, y, x, images) in zip(layout.rows(index), patches, strict=True):
        data_range = row["data_range"] if layout.dtype == "float32" else peak(layout.dtype)
        columns, image_sums = patch_statistics.measure(images, data_range)
        pair = {name: row[name] for name, _ in PAIR_COLUMNS}
        location = {"patch": number, "slot": layout.slot(number), "y": y, "x": x, "data_range": data_range}
        records.append(pair | location | columns)
        sums.append(image_sums)
        for side, image in images.items():
            chunks[side].append(codec.encode(image))
    store.write(index, chunks, pa.Table.from_pylist(records, schema(layout.arrays)), patch_statistics.add(sums))


@dataclass(frozen=True)
class ShardCheck:
    """Task of a worker: one shard to check."""

    url: str
    key: str
    index: int


def check_shard(task: ShardCheck) -> bool:
    """Return whether a shard exists and is undamaged."""
    return _writer(task.url, task.key).done(task.index)


@lru_cache(maxsize=4)
def _writer(url: str, key: str) -> ShardWriter:
    store = ShardWriter.planned(url)
    assert store.key == key, "the plan of a store never changes"
    return store


def finalise(
    url: str, *, cluster: ClusterConfig = _INLINE, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Check all shards of a store that was written in ``--parts``, and commit it. Does nothing if it is committed.

    Raises:
        UserError: There is no planned store, or shards are missing; names them.
    """
    store = ShardWriter.planned(url)
    if store.kind != KIND:
        raise UserError(f"{url}: holds a {store.kind} and no {KIND}; give the place of one")
    store.require_parts(store.layout.shards)
    checks = [ShardCheck(url, store.key, index) for index in range(store.layout.shards)]
    damaged = []
    for done, (check, whole) in enumerate(run_each(cluster, check_shard, checks)):
        if not whole:
            damaged.append(part_name(check.index))
        progress(done + 1, len(checks))
    refuse_missing(url, sorted(damaged), len(checks))
    digest = publish(store)
    return {"patches": store.layout.pairs, "shards": store.layout.shards, "digest": digest, "store": url}


def publish(store: ShardWriter) -> str:
    """Statistics and the commit record of a patch store, out of the parts alone; returns the store's digest."""
    store.require_parts(store.layout.shards)
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("dataset", "camera", "iso", "split")}
    licences: set[str] = set()
    sums, stored = [], 0
    for index in range(store.layout.shards):
        _, table, facts = store.part(index)
        for name, counter in counts.items():
            counter.update(str(value) for value in table.column(name).to_pylist())
        licences |= set(table.column("licence").to_pylist())
        sums.append(facts.sums)
        stored += sum(fact.bytes for fact in facts.objects.values())
    statistics = {
        "patches": {name: dict(sorted(counter.items())) for name, counter in counts.items()},
        **patch_statistics.pooled(patch_statistics.add(sums), store.layout.dtype),
        "raw_bytes": store.layout.raw_bytes,
        "stored_bytes": stored,
    }
    record = {
        "format": "pngnoise-patches",
        "licence": "; ".join(sorted(licences)),
        "parts": store.list_parts(store.layout.shards),
        "rejected": store.notes["rejected"],
        "statistics": statistics,
    }
    return store.commit_images(COMMIT, PatchStoreRecord, record).digest


task_extract_patches = step("extract_patches")(extract_patches)
task_finalise = step("finalise_store")(finalise)
