"""Flow: extract patches from the images of a catalogue into a sharded patch store."""

from __future__ import annotations

from typing import Any

from flows.pipeline import part, pipeline, tail
from tasks.datasets.extraction import task_extract_patches
from tasks.datasets.parameters import PatchParameters
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline("extract_patches", PatchParameters, lambda p: f"patches {tail(p.output)}: {tail(p.catalogue)}{part(p.parts)}")
def extract_patches(parameters: PatchParameters) -> dict[str, Any]:
    """Write a patch store, keeping finished shards of an earlier run; returns patches, shards and digest."""
    result = task_extract_patches(
        parameters.catalogue,
        parameters.output,
        geometry=parameters,
        shard=parameters.shard,
        select=parameters,
        parts=parameters.parts,
        cluster=parameters.cluster,
        progress=reporter("patches", "shards"),
    )
    publish_markdown("patches", f"# Patches\n\n{table({k: v for k, v in result.items() if k != 'rejected'})}")
    return result
