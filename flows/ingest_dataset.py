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
    """What to read and where the catalogue goes."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="folder or URL that holds the dataset as its owners ship it")
    adapter: str = Field(
        description="sidd-medium, sidd-small, sidd-validation, sidd-benchmark, sidd-plus, polyu, nam, cc15, dnd, "
        "folders, tiff, clean, or a YAML rule file of configs/datasets/"
    )
    output: str = Field(description="folder or URL of the catalogue")
    settings: IngestSettings = Field(
        default_factory=IngestSettings, description="what is asked of the dataset beyond its layout"
    )
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="where images are looked at"
    )


@pipeline(
    "ingest_dataset", IngestParameters, lambda p: f"ingest {tail(p.output)}: {tail(p.source)} as {tail(p.adapter)}"
)
def ingest_dataset(parameters: IngestParameters) -> dict[str, Any]:
    """Read and verify all pairs, write the catalogue. Returns pairs, rejected with reasons, digest."""
    result = task_ingest(
        parameters.source,
        parameters.adapter,
        parameters.output,
        parameters.settings,
        cluster=parameters.cluster,
        progress=reporter("ingest", "pairs"),
    )
    publish_markdown("ingest", lambda: describe(result["catalogue"]), "what the dataset holds")
    return result
