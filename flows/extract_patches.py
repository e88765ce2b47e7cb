"""Flow: extract patches from the images of a catalogue into a sharded patch store."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import part, pipeline, tail
from tasks.datasets.extraction import Geometry, Selection, task_extract_patches
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.progress import reporter


class PatchParameters(BaseModel):
    """Parameters of extract_patches."""

    model_config = ConfigDict(extra="forbid")

    catalogue: str = Field(description="folder or URL of a catalogue from ingest_dataset")
    output: str = Field(description="folder or URL of the patch store")
    geometry: Geometry = Field(default_factory=lambda: Geometry(), description="size and stride of patches")
    shard: int = Field(64, ge=1, description="patches per shard; a shard is one object per array")
    select: Selection = Field(default_factory=lambda: Selection(), description="filter of images")
    parts: str | None = Field(None, description="'i/n': process only part i of n; run finalise_store after all parts")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="local"), description="cluster; one task per batch of shards"
    )


@pipeline("extract_patches", PatchParameters, lambda p: f"patches {tail(p.output)}: {tail(p.catalogue)}{part(p.parts)}")
def extract_patches(parameters: PatchParameters) -> dict[str, Any]:
    """Write the patch store, keeping finished shards of an earlier run. Returns patches, shards, digest."""
    result = task_extract_patches(
        parameters.catalogue,
        parameters.output,
        geometry=parameters.geometry,
        shard=parameters.shard,
        select=parameters.select,
        parts=parameters.parts,
        cluster=parameters.cluster,
        progress=reporter("patches", "shards"),
    )
    publish_markdown("patches", f"# Patches\n\n{table({k: v for k, v in result.items() if k != 'rejected'})}")
    return result
