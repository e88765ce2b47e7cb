"""Flow: how well a small classifier tells generated noise from real noise, for the model and all baselines."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.artifacts import publish_markdown
from tasks.c2st import C2stParameters, task_evaluate_c2st
from tasks.progress import reporter
from tasks.provenance import commit
from tasks.reporting import c2st_table


@flow(name="evaluate_c2st", flow_run_name="c2st-{parameters.model}", persist_result=False)
def evaluate_c2st(parameters: C2stParameters) -> dict[str, Any]:
    """Returns the record: protocol, budget, what was held out, AUC per generator with its spread over seeds."""
    record = task_evaluate_c2st(parameters, reporter("c2st", "classifiers"))
    publish_markdown("c2st", f"# Classifier two-sample test ({record['protocol']})\n\n{c2st_table(record)}")
    return record | {"name": parameters.model, "commit": commit()}
