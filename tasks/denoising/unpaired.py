"""The unpaired setting: noisy images alone, whose clean side a denoiser estimates.

The result is a patch store like the one that it is made of: noisy images, rows and splits are the same, the clean
images are the denoiser's. Whatever is trained on it or measured against it takes the estimate's errors for noise: noise
that the denoiser leaves in is missing from it, detail that it removes is part of it.
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
from tasks.datasets import patch_statistics as levels
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
"""Key of the recipe that says of which store and by which denoiser the clean images are estimates."""


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard."""

    url: str
    key: str
    source: str
    digest: str
    denoiser: tuple[str, str, str]
    """Name, device, digest: what :func:`~tasks.models.denoisers.load_denoiser` takes."""
    index: int


def estimate_clean(parameters: EstimateParameters, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Make (or finish) a store whose clean images are denoised noisy ones, or with ``parts`` a share of it.

    Returns:
        Patches and shards (of the share), shards made anew; without ``parts`` the store's digest.

    Raises:
        UserError: no store, no noisy images in it, no such denoiser, or the output is another store.
    """
    p = parameters
    Precision.best(p.device)
    source = PatchStore.open(p.store)
    source.require(NOISY)
    digest = denoiser_digest(p.denoiser)
    load_denoiser(p.denoiser, p.device, digest)  # another kind of bundle is refused before anything is written
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
    for finished, (_, anew) in enumerate(run_each(p.cluster, make_shard, todo), 1):
        made += anew
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
    """The store that was begun, the one that it is made of, and its rows; read once per process."""
    writer, opened = ShardWriter.planned(url), PatchStore.open(source, kept_shards=1)
    if (writer.key, opened.digest) != (key, digest):
        raise IntegrityError(f"{source}: changed while its clean images were estimated; run the same command again")
    return writer, opened, opened.table.to_pylist()


@one_thread()
def make_shard(task: ShardTask) -> int:
    """Denoise and publish one shard unless it is there and whole; returns how many were made: 0 or 1."""
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
        measured, added = levels.measure(images, rows[number]["data_range"])
        records.append({name: value for name, value in rows[number].items() if name in columns} | measured)
        sums.append(added)
        for side, image in images.items():
            chunks[side].append(layout.codec.encode(image))
    writer.write(task.index, chunks, pa.Table.from_pylist(records, schema(ARRAYS)), levels.add(sums))
    return 1


def denoised(noisy: Pixels, data_range: float, denoiser: ImageDenoiser) -> Pixels:
    """The estimate of a stored image (C, H, W), in its dtype: integers rounded to levels, floats in its scale."""
    whole = noisy.dtype.kind == "u"
    scale = np.float32(peak(noisy.dtype.name) if whole else data_range)
    unit = torch.from_numpy(np.clip(noisy.astype(np.float32) / scale, 0, 1))
    found = np.asarray(denoiser.denoise(unit[None])[0], np.float32)
    if found.shape != noisy.shape or not np.isfinite(found).all():
        raise UserError(
            f"{denoiser.name}: made {found.shape} with NaN or of another shape of {noisy.shape}; retrain it"
        )
    out = np.clip(found, 0, 1) * scale
    return np.ascontiguousarray((np.round(out) if whole else out).astype(noisy.dtype))


task_estimate_clean = step("estimate_clean")(estimate_clean)
