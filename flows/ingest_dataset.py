"""Flow: ingest a dataset into a catalogue."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.datasets.ingest import describe, task_ingest
from tasks.datasets.parameters import IngestParameters
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.progress import reporter


@pipeline(
    "ingest_dataset", IngestParameters, lambda p: f"ingest {tail(p.output)}: {tail(p.source)} as {tail(p.adapter)}"
)
def ingest_dataset(parameters: IngestParameters) -> dict[str, Any]:
    """Read and verify all pairs and write the catalogue; returns pairs, rejected pairs with reasons, and digest."""
    result = task_ingest(
        parameters.source,
        parameters.adapter,
        parameters.output,
        parameters,
        cluster=parameters.cluster,
        progress=reporter("ingest", "pairs"),
    )
    publish_markdown("ingest", lambda: describe(result["catalogue"]), "content of the dataset")
    return result
