"""The unpaired setting: clean images are estimated from noisy images by a denoiser.

The result is a patch store with the noisy images, rows and splits of the source, and denoised images as clean images.
Its noise includes the errors of the denoiser: residual noise is missing from it, and removed detail is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pngmodel.denoisers import ImageDenoiser
from pngmodel.errors import IntegrityError, UserError
from pngmodel.network.model import Precision
from tasks.datasets import patch_statistics
from tasks.datasets.extraction import Progress, publish, share
from tasks.denoising.parameters import EstimateParameters
from tasks.models.denoisers import CLASSICAL, denoiser_digest, load_denoiser
from tasks.models.generators import one_thread
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import device_name
from tasks.runtime.steps import step
from tasks.stores.layout import ARRAYS, CLEAN, NOISY, peak
from tasks.stores.patch_store import KIND, PatchStore, schema
from tasks.stores.shard_file import Pixels
from tasks.stores.writer import ShardWriter

ESTIMATED = "estimated_clean"
"""Key of the recipe with source store and denoiser of estimated clean images."""


@dataclass(frozen=True)
class ShardTask:
    """Task of a worker: one shard."""

    url: str
    key: str
    source: str
    digest: str
    denoiser: tuple[str, str, str]
    """Arguments of :func:`~tasks.models.denoisers.load_denoiser`: name, device, digest."""
    index: int


def estimate_clean(parameters: EstimateParameters, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Create or resume a patch store with estimated clean images, or one part of it with ``parts``.

    Returns:
        Patches and shards (of the part), number of newly written shards, and without ``parts`` the digest of the store.

    Raises:
        UserError: There is no such store or denoiser, the store has no noisy images, or the output is another store.
    """
    p = parameters
    Precision.best(p.device)
    source = PatchStore.open(p.store)
    source.require(NOISY)
    digest = denoiser_digest(p.denoiser)
    load_denoiser(p.denoiser, p.device, digest)  # reject other kinds of bundles before writing anything
    estimate = {
        "source": source.digest,
        "denoiser": p.denoiser if p.denoiser in CLASSICAL else digest,
        "device": device_name(p.device),
    }
    recipe = source.record.recipe | {ESTIMATED: estimate}
    layout = replace(source.layout, arrays=ARRAYS)
    store = ShardWriter(p.output, KIND, layout, recipe, {"rejected": source.record.rejected})
    store.prepare()
    common = (p.output, store.key, p.store, source.digest, (p.denoiser, p.device, digest))
    todo = share([ShardTask(*common, index) for index in range(layout.shards)], p.parts)
    made = 0
    progress(0, len(todo))
    for finished, (_, written) in enumerate(run_each(p.cluster, make_shard, todo), 1):
        made += written
        progress(finished, len(todo))
    result = {
        "patches": sum(len(layout.rows(task.index)) for task in todo),
        "shards": len(todo),
        "made": made,
        "denoiser": p.denoiser,
        "store": p.output,
    }
    return result | ({"parts": p.parts} if p.parts else {"digest": publish(store)})


@lru_cache(maxsize=4)
def _opened(url: str, key: str, source: str, digest: str) -> tuple[ShardWriter, PatchStore, list[dict[str, Any]]]:
    """Open the new store, the source store and its rows; cached per process."""
    writer, opened = ShardWriter.planned(url), PatchStore.open(source, kept_shards=1)
    if (writer.key, opened.digest) != (key, digest):
        raise IntegrityError(f"{source}: the store has changed since this run was planned; run the same command again")
    return writer, opened, opened.table.to_pylist()


@one_thread()
def make_shard(task: ShardTask) -> int:
    """Denoise and publish one shard unless it already exists; return the number of written shards, 0 or 1."""
    writer, source, rows = _opened(task.url, task.key, task.source, task.digest)
    if writer.done(task.index):
        return 0
    denoiser = load_denoiser(*task.denoiser)
    layout, numbers = writer.layout, writer.layout.rows(task.index)
    columns = schema(ARRAYS).names
    chunks: dict[str, list[bytes]] = {side: [] for side in ARRAYS}
    records, sums = [], []
    for number in numbers:
        noisy = source.read_image(number, NOISY)
        images = {CLEAN: denoised(noisy, rows[number]["data_range"], denoiser), NOISY: noisy}
        statistics, image_sums = patch_statistics.measure(images, rows[number]["data_range"])
        records.append({name: value for name, value in rows[number].items() if name in columns} | statistics)
        sums.append(image_sums)
        for side, image in images.items():
            chunks[side].append(layout.codec.encode(image))
    writer.write(task.index, chunks, pa.Table.from_pylist(records, schema(ARRAYS)), patch_statistics.add(sums))
    return 1


def denoised(noisy: Pixels, data_range: float, denoiser: ImageDenoiser) -> Pixels:
    """Denoise a stored image (C, H, W); return it in the same dtype and data range, integers rounded.

    Raises:
        UserError: The output of the denoiser has another shape or non-finite values.
    """
    integer = noisy.dtype.kind == "u"
    scale = np.float32(peak(noisy.dtype.name) if integer else data_range)
    unit = torch.from_numpy(np.clip(noisy.astype(np.float32) / scale, 0, 1))
    output = np.asarray(denoiser.denoise(unit[None])[0], np.float32)
    if output.shape != noisy.shape:
        raise UserError(
            f"{denoiser.name}: the output has shape {output.shape}, the input {noisy.shape}; use another denoiser"
        )
    if not np.isfinite(output).all():
        raise UserError(f"{denoiser.name}: the output has NaN or infinite values; train the denoiser again")
    out = np.clip(output, 0, 1) * scale
    return np.ascontiguousarray((np.round(out) if integer else out).astype(noisy.dtype))


task_estimate_clean = step("estimate_clean")(estimate_clean)
