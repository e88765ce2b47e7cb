"""Flow: check and commit a patch store that was made in parts."""

from __future__ import annotations

from typing import Any

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from tasks.artifacts import publish_markdown, table
from tasks.clusters import ClusterConfig
from tasks.patches import task_finalise
from tasks.progress import reporter


class FinaliseParameters(BaseModel):
    """Which store."""

    model_config = ConfigDict(extra="forbid")

    store: str = Field(description="folder or URL that extract_patches wrote parts to")
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig(kind="local"))


@flow(name="finalise_patches", flow_run_name="finalise-{parameters.store}")
def finalise_patches(parameters: FinaliseParameters) -> dict[str, Any]:
    """Check all shards, write statistics and the commit record. Returns patches, shards, digest."""
    result = task_finalise(parameters.store, cluster=parameters.cluster, progress=reporter("check", "shards"))
    publish_markdown("patches", f"# Patches\n\n{table(result)}")
    return result
