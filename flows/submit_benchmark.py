"""Flow: denoise a benchmark without public ground truth and write the files for its server."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.denoising.parameters import SubmitParameters
from tasks.denoising.submissions import task_submit
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline("submit_benchmark", SubmitParameters, lambda p: f"submit {p.benchmark}: {tail(p.denoiser)}")
def submit_benchmark(parameters: SubmitParameters) -> dict[str, Any]:
    """Write the submission, keeping images of an earlier run; returns its record."""
    record = task_submit(parameters, reporter("submit", "images"))
    summary = {name: value for name, value in record.items() if name not in ("files", "description")}
    publish_markdown("submission", f"# Submission\n\n{table(summary | {'files': len(record['files'])})}")
    return record
