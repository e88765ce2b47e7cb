"""Flow: export a corpus to file formats of common training frameworks. If interrupted, run it again to resume."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.corpus.exports.export import ExportParameters, task_export_corpus
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline("export_corpus", ExportParameters, lambda p: f"export {tail(p.output)}: {tail(p.corpus)} as {p.format}")
def export_corpus(parameters: ExportParameters) -> dict[str, Any]:
    """Write the export, keeping finished files of an earlier run. Returns pairs, bytes, shares, digest."""
    result = task_export_corpus(parameters, reporter("export", "images"))
    publish_markdown("export", f"# Export\n\n{table(result)}")
    return result
