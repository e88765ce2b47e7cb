"""Flow: how well do prompts, and the noise itself, identify the camera?"""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.evaluation.metadata import task_classify_metadata
from tasks.evaluation.metadata_report import metadata_table, task_write_metadata_report
from tasks.evaluation.parameters import MetadataParameters
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.progress import reporter
from tasks.runtime.provenance import commit


@pipeline("classify_metadata", MetadataParameters, lambda p: f"metadata {tail(p.model)}: {len(p.references)} sets")
def classify_metadata(parameters: MetadataParameters) -> dict[str, Any]:
    """Train and test camera classifiers; returns classes, skipped data, accuracies and confusion counts."""
    record = task_classify_metadata(parameters, reporter("metadata", "networks"))
    publish_markdown("metadata", f"# Camera classification from prompts\n\n{metadata_table(record)}")
    if parameters.report:
        task_write_metadata_report(record, parameters.report)
    return record | {"name": parameters.model, "commit": commit()}
