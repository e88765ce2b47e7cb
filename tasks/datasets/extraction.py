"""Patch extraction: catalogued images -> a sharded patch store.

A task is a run of consecutive catalogue rows whose patches fill whole shards that no other task touches: many small
images in one shard, one large image in several. The last shard of a task is padded. A process
that cuts one task after the other decodes what they share (the clean image of repeats) once.
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
from tasks.datasets import patch_statistics as levels
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
"""(size, stride) by name: how SIDD is usually cut for training, overlapping and not."""
_SHARD = 64
_INLINE = ClusterConfig(kind="inline")
Progress = Callable[[int, int], None]
Shared = TypeVar("Shared")


def resolved(geometry: Geometry) -> tuple[int, int]:
    """(size, stride) in pixels.

    Raises:
        UserError: an unknown preset, or a preset together with a size or stride.
    """
    if geometry.preset is None:
        size = geometry.size or PRESETS["sidd-256"][0]
        return size, geometry.stride or size
    if geometry.preset not in PRESETS:
        raise UserError(
            f"--preset {geometry.preset!r} does not exist; choose one of {', '.join(PRESETS)}, or give size and stride"
        )
    if geometry.size or geometry.stride:
        raise UserError(f"--preset {geometry.preset!r} sets size and stride; give either the preset or these")
    return PRESETS[geometry.preset]


def _selected(rows: list[dict[str, Any]], wanted: dict[str, Any], catalogue: str) -> list[dict[str, Any]]:
    """The rows with these values.

    Raises:
        UserError: there are none; names the values that exist.
    """
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    if not found:
        there = "; ".join(f"{name}: {sorted({str(row[name]) for row in rows})}" for name in wanted)
        asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
        raise UserError(f"{catalogue}: no image has {asked}; there are {there}" if asked else f"{catalogue}: empty")
    return found


@dataclass(frozen=True)
class Unit:
    """One task: rows of the catalogue's usable ones, and the shards that their patches fill."""

    rows: tuple[int, int]
    shards: tuple[int, int]


@dataclass(frozen=True)
class UnitTask:
    """What a worker needs to make one unit; sizes and recipe stand in the store's plan."""

    url: str
    key: str
    catalogue: str
    table_sha256: str | None
    unit: Unit


def corners(length: int, size: int, stride: int) -> list[int]:
    """First pixels of windows along one side; the last window is flush with the border (as SIDD is cropped)."""
    if length < size:
        return []
    found = list(range(0, length - size + 1, stride))
    return found if found[-1] == length - size else [*found, length - size]


def _windows(row: dict[str, Any], size: int, stride: int) -> list[tuple[int, int]]:
    """(y, x) of every patch of an image."""
    ys, xs = corners(row["height"], size, stride), corners(row["width"], size, stride)
    return [(y, x) for y in ys for x in xs]


def pack(counts: Sequence[int], shard: int) -> tuple[list[Unit], tuple[int, ...]]:
    """Units for images with so many patches each, and how many pairs each shard then holds."""
    units: list[Unit] = []
    filled: list[int] = []

    def close(start: int, stop: int, held: int) -> None:
        before = len(filled)
        filled.extend([shard] * (held // shard) + ([held % shard] if held % shard else []))
        units.append(Unit((start, stop), (before, len(filled))))

    start = held = 0
    for row, count in enumerate(counts):
        if held and held + count > shard:
            close(start, row, held)
            start, held = row, 0
        held += count
    if held:
        close(start, len(counts), held)
    return units, tuple(filled)


def share(units: Sequence[Shared], parts: str | None) -> Sequence[Shared]:
    """The units of part i of n (``"i/n"``), contiguous, so that few processes open the same container file.

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
    """Make (or finish) the patch store at ``output``, or with ``parts`` a share of it that :func:`finalise` needs.

    Returns:
        Patches and shards (of the share), shards made anew, rejected images; without ``parts`` the store's digest.

    Raises:
        UserError: no catalogue, images of several kinds, no patch fits, or the output is another store.
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
    units, filled = pack([len(_windows(row, size, stride)) for row in rows], shard)
    mine = share(units, parts)
    layout = Layout(
        sum(filled), shard, rows[0]["channels"], size, size, rows[0]["dtype"], _sides(rows[0]), tuple(filled)
    )
    store = ShardWriter(output, KIND, layout, recipe, {"rejected": rejected})
    store.prepare()
    total, finished, made = sum(u.shards[1] - u.shards[0] for u in mine), 0, 0
    progress(finished, total)
    todo = [UnitTask(output, store.key, catalogue, table_sha256, unit) for unit in mine]
    for task, count in run_each(cluster, make_unit, todo):
        finished += task.unit.shards[1] - task.unit.shards[0]
        made += count
        progress(finished, total)
    result = {
        "patches": sum(sum(filled[slice(*unit.shards)]) for unit in mine),
        "shards": total,
        "made": made,
        "rejected": rejected,
        "store": output,
    }
    # every shard was made or checked a moment ago
    return result | ({"parts": parts} if parts else {"digest": publish(store)})


def _sides(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(side for side in ARRAYS if row[side] is not None)


def _usable(
    rows: list[dict[str, Any]], recipe: dict[str, Any], catalogue: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows that a recipe cuts, and those that are too small; a function of the arguments, here and on workers."""
    chosen = _selected(rows, recipe["select"], catalogue)
    kinds = Counter((row["channels"], row["dtype"], " and ".join(_sides(row))) for row in chosen)
    if len(kinds) > 1:
        words = "; ".join(f"{n} of {c} x {dtype} ({sides})" for (c, dtype, sides), n in sorted(kinds.items()))
        raise UserError(
            f"{catalogue}: holds images of several kinds: {words}. Choose one with --channels, --dtype, --split or "
            "--camera; pairs and single images are ingested apart"
        )
    size = recipe["size"]
    usable, rejected = [], []
    for row in chosen:
        if _windows(row, size, recipe["stride"]):
            usable.append(row)
        else:
            reason = f"{row['height']} x {row['width']} pixels is smaller than the patch size {size}"
            rejected.append({"id": row["pair"], "reason": reason})
    if not usable:
        raise UserError(f"{catalogue}: no image holds a patch of {size} x {size}; choose a smaller --size")
    return usable, rejected


def _table_sha256(catalogue: str) -> str | None:
    """What the catalogue's table is known by, places of files included, which its digest leaves out."""
    location = join(catalogue, CATALOGUE)
    return read_json(location).get("table_sha256") if exists(location) else None


@lru_cache(maxsize=4)
def _planned(url: str, key: str, catalogue: str, table_sha256: str | None) -> tuple[ShardWriter, list[dict[str, Any]]]:
    """A store that was begun, and the catalogue's rows that go into it; read once per process."""
    store = ShardWriter.planned(url)
    table, digest = load_catalogue(catalogue)
    if (store.key, digest, _table_sha256(catalogue)) != (key, store.recipe["catalogue"], table_sha256):
        raise IntegrityError(f"{catalogue}: changed while patches were cut from it; run the same command again")
    return store, _usable(table.to_pylist(), store.recipe, catalogue)[0]


def make_unit(task: UnitTask) -> int:
    """Cut and publish the shards of one unit that are not there or not whole; returns how many those were."""
    store, rows = _planned(task.url, task.key, task.catalogue, task.table_sha256)
    indices = range(*task.unit.shards)
    missing = [index for index in indices if not store.done(index)]
    if not missing:
        return 0
    patches = _patches(rows, task.unit, store)
    for index in indices:
        ours = islice(patches, len(store.layout.rows(index)))
        if index in missing:
            _write_shard(store, index, ours)
        else:
            deque(ours, maxlen=0)
    return len(missing)


def _patches(
    rows: list[dict[str, Any]], unit: Unit, store: ShardWriter
) -> Iterator[tuple[dict[str, Any], int, int, dict[str, Pixels]]]:
    """(row, y, x, images) of every patch in order. One image (or pair) is held at a time."""
    size, stride = store.recipe["size"], store.recipe["stride"]
    readers = {side: _images(rows, unit, side) for side in store.layout.arrays}
    for row in rows[slice(*unit.rows)]:
        whole = {side: np.moveaxis(next(reader), -1, 0) for side, reader in readers.items()}
        for y, x in _windows(row, size, stride):
            square = np.s_[:, y : y + size, x : x + size]
            yield row, y, x, {side: np.ascontiguousarray(image[square]) for side, image in whole.items()}


_kept: dict[str, tuple[str, Pixels]] = {}
"""By side: digest and pixels of an image that the next unit begins with."""


def _images(rows: list[dict[str, Any]], unit: Unit, side: str) -> Iterator[Pixels]:
    """The images of a unit's rows. What its first rows share with the unit before is not decoded again."""
    start, stop = unit.rows
    digests = [row[f"{side}_sha256"] for row in rows[start : stop + 1]]
    digest, image = _kept.pop(side, ("", np.empty(0)))
    again = sum(1 for _ in takewhile(lambda other: other == digest, digests[: stop - start]))
    images = chain(repeat(image, again), read_catalogued(rows[start + again : stop], side))
    for number, image in enumerate(images):
        if start + number + 1 == stop and digests[number + 1 :] == [digests[number]]:
            _kept[side] = digests[number], image
        yield image


def _write_shard(
    store: ShardWriter, index: int, patches: Iterator[tuple[dict[str, Any], int, int, dict[str, Pixels]]]
) -> None:
    """Encode and describe patches one by one, so that no more than their compressed form is held, and publish them."""
    layout, codec = store.layout, store.layout.codec
    chunks: dict[str, list[bytes]] = {side: [] for side in layout.arrays}
    records, sums = [], []
    for number, (row, y, x, images) in zip(layout.rows(index), patches, strict=True):
        data_range = row["data_range"] if layout.dtype == "float32" else peak(layout.dtype)
        columns, added = levels.measure(images, data_range)
        pair = {name: row[name] for name, _ in PAIR_COLUMNS}
        location = {"patch": number, "slot": layout.slot(number), "y": y, "x": x, "data_range": data_range}
        records.append(pair | location | columns)
        sums.append(added)
        for side, image in images.items():
            chunks[side].append(codec.encode(image))
    store.write(index, chunks, pa.Table.from_pylist(records, schema(layout.arrays)), levels.add(sums))


@dataclass(frozen=True)
class ShardCheck:
    """One shard to be checked on a worker."""

    url: str
    key: str
    index: int


def check_shard(task: ShardCheck) -> bool:
    """Whether a shard is there and whole."""
    return _begun(task.url, task.key).done(task.index)


@lru_cache(maxsize=4)
def _begun(url: str, key: str) -> ShardWriter:
    store = ShardWriter.planned(url)
    assert store.key == key, "the plan of a store never changes"
    return store


def finalise(
    url: str, *, cluster: ClusterConfig = _INLINE, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Check every shard of a store that was made in ``--parts`` and commit it; nothing changes when that was done.

    Raises:
        UserError: nothing was begun there, or parts are missing; names them.
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
        **levels.pooled(levels.add(sums), store.layout.dtype),
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
