"""Flow: check and commit a patch store or corpus that was made in parts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.running import pipeline, tail
from tasks.artifacts import publish_markdown, table
from tasks.clusters import ClusterConfig
from tasks.corpora import recorded_parameters, require_parts
from tasks.inspection import begun_kind
from tasks.patches import task_finalise
from tasks.progress import reporter
from tasks.stores.corpus import KIND as CORPUS


class FinaliseParameters(BaseModel):
    """Which store."""

    model_config = ConfigDict(extra="forbid")

    store: str = Field(description="folder or URL that extract_patches or generate_synthetic_corpus wrote parts to")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="local"), description="where shards are checked"
    )


@pipeline("finalise_store", FinaliseParameters, lambda p: f"finalise {tail(p.store)}")
def finalise_store(parameters: FinaliseParameters) -> dict[str, Any]:
    """Check all shards and publish the store; says which parts are missing. Returns counts and digest."""
    if begun_kind(parameters.store) == CORPUS:
        require_parts(parameters.store)
        return generate_synthetic_corpus(recorded_parameters(parameters.store, cluster=parameters.cluster))
    result = task_finalise(parameters.store, cluster=parameters.cluster, progress=reporter("check", "shards"))
    publish_markdown("patches", f"# Patches\n\n{table(result)}")
    return result
