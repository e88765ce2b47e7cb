"""Flow: ingest a dataset into a catalogue."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.datasets.ingest import IngestSettings, describe, task_ingest
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.progress import reporter


class IngestParameters(BaseModel):
    """Parameters of ingest_dataset."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="folder, archive or URL of the dataset as published")
    adapter: str = Field(
        description="sidd-medium, sidd-small, sidd-validation, sidd-benchmark, sidd-plus, polyu, nam, cc15, dnd, "
        "folders, tiff, clean, or a YAML rule file (see configs/datasets/)"
    )
    output: str = Field(description="folder or URL of the catalogue")
    settings: IngestSettings = Field(
        default_factory=IngestSettings, description="splits, licence and limits of the ingestion"
    )
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="cluster that reads images"
    )


@pipeline(
    "ingest_dataset", IngestParameters, lambda p: f"ingest {tail(p.output)}: {tail(p.source)} as {tail(p.adapter)}"
)
def ingest_dataset(parameters: IngestParameters) -> dict[str, Any]:
    """Read and verify all pairs, and write the catalogue. Returns pairs, rejected pairs with reasons, digest."""
    result = task_ingest(
        parameters.source,
        parameters.adapter,
        parameters.output,
        parameters.settings,
        cluster=parameters.cluster,
        progress=reporter("ingest", "pairs"),
    )
    publish_markdown("ingest", lambda: describe(result["catalogue"]), "content of the dataset")
    return result
