"""Flow: classifier two-sample test of the noise of the model and all baselines."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.evaluation.c2st import C2stParameters, task_evaluate_c2st
from tasks.reports.tables import c2st_table
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.progress import reporter
from tasks.runtime.provenance import commit


@pipeline("evaluate_c2st", C2stParameters, lambda p: f"c2st-{p.reference} {tail(p.model)} on {tail(p.references)}")
def evaluate_c2st(parameters: C2stParameters) -> dict[str, Any]:
    """Return the record: protocol, budget, held-out pairs, AUC per generator with its std over seeds."""
    record = task_evaluate_c2st(parameters, reporter("c2st", "classifiers"))
    publish_markdown("c2st", f"# Classifier two-sample test ({record['protocol']})\n\n{c2st_table(record)}")
    return record | {"name": parameters.model, "commit": commit()}
