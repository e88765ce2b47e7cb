"""Flow: measure a noise generator on real pairs, beside the floor and the baselines."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.artifacts import publish_markdown
from tasks.evaluation import EvaluateParameters, task_evaluate_noise
from tasks.progress import reporter
from tasks.provenance import commit
from tasks.publication import HEADLINE
from tasks.reporting import markdown_table, simplified_note, task_write_report


@flow(name="evaluate_noise", flow_run_name="evaluate-{parameters.model}", persist_result=False)
def evaluate_noise(parameters: EvaluateParameters) -> dict[str, Any]:
    """Returns the evaluation record: protocol, digests, figures per generator, also per camera."""
    evaluation = task_evaluate_noise(parameters, reporter("evaluate", "pairs"))
    if parameters.report and evaluation.examples:
        task_write_report(evaluation, parameters.report)
    figures = markdown_table(evaluation.record["figures"], HEADLINE)
    note = simplified_note(evaluation.record)
    publish_markdown("noise-evaluation", f"# Noise evaluation ({evaluation.record['protocol']})\n\n{figures}{note}")
    return evaluation.record | {"name": parameters.model, "commit": commit()}
