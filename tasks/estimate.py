"""What a corpus will cost, measured on a few of its own samples before any is published."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from tasks.generators import load_generator, one_thread
from tasks.promptbank import extracted
from tasks.sources import planned_clean, planned_references
from tasks.stores.layout import Layout
from tasks.synthesis import CorpusPlan

_PROBES = 2


def estimate(plan: CorpusPlan) -> dict[str, Any]:
    """Counts, bytes and seconds of a planned corpus; generates two samples and throws them away.

    Seconds are for one process on the plan's device and exclude start-up and the report.
    """
    parameters, layout = plan.parameters, plan.layout
    name = (parameters.model, parameters.device, plan.recipe["model"])
    generator = load_generator(*name)
    clean_source = planned_clean(parameters.clean, plan.recipe["clean"])
    references = planned_references(parameters.references, plan.recipe["references"])
    seconds, extraction, stored = [], [], []
    for sample in plan.samples[:: max(1, len(plan.samples) // _PROBES)][:_PROBES]:
        image = clean_source.read(sample.clean)
        clean = image[sample.y : sample.y + parameters.crop, sample.x : sample.x + parameters.crop]
        with one_thread():
            started = time.monotonic()
            entry = (references.kept or partial(extracted, name, references))(sample.reference)
            extraction.append(time.monotonic() - started)
            started = time.monotonic()
            noisy = np.asarray(generator.generate(clean, prompts=entry.prompts, seed=[sample.seed]))
            seconds.append(time.monotonic() - started)
        stored.append(sum(len(layout.codec.encode(np.moveaxis(x, -1, 0))) for x in (clean, noisy)))
    return {
        "pairs": layout.pairs,
        "clean_patches": layout.pairs // parameters.scale,
        "references": len(references.references),
        "shards": layout.shards,
        "rejected_clean_images": len(plan.rejected),
        "bytes_stored": round(float(np.mean(stored)) * layout.pairs),
        "bytes_uncompressed": layout.bytes_per_pair * layout.pairs,
        "memory_per_process_bytes": _memory(layout),
        "seconds_per_pair": round(min(seconds), 4),  # the first call also warms up
        "seconds_per_reference": round(min(extraction), 4),
        "seconds": round(min(seconds) * layout.pairs + min(extraction) * len({s.reference for s in plan.samples}), 1),
    }


def _memory(layout: Layout) -> int:
    """Bytes that one shard needs while it is made: its pixels and one encoded copy."""
    return 2 * layout.bytes_per_pair * min(layout.shard, layout.pairs)
