"""Estimates size and time of a corpus from a few of its samples."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from tasks.corpus.plan import CorpusPlan
from tasks.corpus.regenerate import clean_of
from tasks.datasets.reference_pairs import planned_references
from tasks.models.generators import load_generator, one_thread
from tasks.models.prompt_bank import KEPT_ENTRIES, extracted
from tasks.stores.corpus_store import manifest_shards
from tasks.stores.layout import CLEAN, NOISY

_PROBES = 4
_MANIFEST_ROW = 117  # bytes of a row in part and manifest each, most of it digests (docs/scale.md)
_SHARDS_IN_MEMORY = 4  # one loaded, one computed, two being stored


def estimate(plan: CorpusPlan) -> dict[str, Any]:
    """Counts, bytes, requests and time of a planned corpus. Generates a few samples and discards them.

    Seconds and hours are of one process on the plan's device and exclude start-up, the gate and the report.
    """
    parameters, layout = plan.parameters, plan.layout
    generator = load_generator(*plan.job.generator)
    references = planned_references(*plan.job.references)
    seconds, extraction = [], []
    stored: dict[str, list[int]] = {CLEAN: [], NOISY: []}
    probes = sorted({int(pair) for pair in np.linspace(0, layout.pairs - 1, _PROBES)})
    for pair in [probes[0], *probes]:  # the first twice: the first call warms up
        sample, clean = plan.sample(pair), clean_of(plan, pair)
        with one_thread():
            started = time.monotonic()
            entry = (references.kept or partial(extracted, plan.job.generator, references))(sample.reference)
            extraction.append(time.monotonic() - started)
            started = time.monotonic()
            noisy = generator.generate(np.moveaxis(clean, 0, -1), prompts=entry.prompts, seed=[sample.seed])
            seconds.append(time.monotonic() - started)
        stored[CLEAN].append(len(layout.codec.encode(clean)))
        stored[NOISY].append(len(layout.codec.encode(np.moveaxis(np.asarray(noisy), -1, 0))))
    repeats, used = layout.repeats or 1, min(_used_references(plan), layout.pairs)
    # With more references than a process caches, most samples extract prompts again; a bank is read quickly.
    extracted_anew = used if used <= KEPT_ENTRIES else layout.pairs * (1 - KEPT_ENTRIES / used)
    total = float(np.mean(seconds[1:])) * layout.pairs + float(np.mean(extraction[1:])) * extracted_anew
    recipe = parameters.mode == "recipe"
    pixels = sum(float(np.mean(stored[a][1:])) * (layout.pairs if a == NOISY else layout.images) for a in layout.arrays)
    objects = layout.shards + (layout.shards_per_repeat if CLEAN in layout.arrays else 0)
    return {
        "pairs": layout.pairs,
        "clean_patches": layout.images,
        "repeats": repeats,
        "references": len(references.references),
        "shards": 0 if recipe else layout.shards,
        "rejected_clean_images": len(plan.clean_index.source.rejected),
        "bytes_stored": 0 if recipe else round(pixels + 2 * _MANIFEST_ROW * layout.pairs),
        "bytes_uncompressed": 0 if recipe else layout.raw_bytes,
        "objects": 0 if recipe else objects + layout.shards + 2 * len(manifest_shards(layout)),
        # one request checks for a part before it is made, one reads it for the manifest
        "put_requests": 0 if recipe else objects + layout.shards + 2 * len(manifest_shards(layout)),
        "get_requests": 0 if recipe else 2 * layout.shards,
        "memory_per_process_bytes": _SHARDS_IN_MEMORY * 3 * layout.bytes_per_image * min(layout.shard, layout.images),
        "seconds_per_pair": round(float(np.mean(seconds[1:])), 4),
        "seconds_per_reference": round(float(np.mean(extraction[1:])), 4),
        "seconds": 0.0 if recipe else round(total, 1),
        "device_hours": 0.0 if recipe else round(total / 3600, 4),
    }


def _used_references(plan: CorpusPlan) -> int:
    """Number of references used, estimated from some samples."""
    pairs = np.linspace(0, plan.layout.pairs - 1, min(plan.layout.pairs, 2000)).astype(int)
    return len({plan.sample(int(pair)).reference for pair in pairs})
