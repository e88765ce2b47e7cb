"""Flow: cut a catalogue's images into a sharded patch store."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import part, pipeline, tail
from tasks.datasets.extraction import Geometry, Selection, task_extract_patches
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.progress import reporter


class PatchParameters(BaseModel):
    """Which catalogue, which patches, where they go."""

    model_config = ConfigDict(extra="forbid")

    catalogue: str = Field(description="folder or URL written by ingest_dataset")
    output: str = Field(description="folder or URL of the patch store")
    geometry: Geometry = Field(default_factory=lambda: Geometry(), description="how an image is cut")
    shard: int = Field(64, ge=1, description="patches per shard; one shard is one object of every array")
    select: Selection = Field(default_factory=lambda: Selection(), description="which images are cut")
    parts: str | None = Field(None, description="'i/n': make part i of n only; finalise_store completes the store")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="local"), description="where shards are made"
    )


@pipeline("extract_patches", PatchParameters, lambda p: f"patches {tail(p.output)}: {tail(p.catalogue)}{part(p.parts)}")
def extract_patches(parameters: PatchParameters) -> dict[str, Any]:
    """Write the patch store; finished shards of an earlier run are kept. Returns patches, shards, digest."""
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
