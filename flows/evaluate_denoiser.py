"""Flow: measure denoisers on real pairs, those trained on synthetic data beside the control trained on real data."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.artifacts import publish_markdown
from tasks.denoiserevaluation import (
    EvaluateDenoiserParameters,
    measurements,
    publish_record,
    record_of,
    task_measure_all,
)
from tasks.denoiserreport import fidelity_markdown, task_write_denoiser_report
from tasks.progress import reporter


@flow(name="evaluate_denoiser", flow_run_name="evaluate-denoisers-{parameters.output}", persist_result=False)
def evaluate_denoiser(parameters: EvaluateDenoiserParameters) -> dict[str, Any]:
    """Returns the evaluation record. What was measured before is read from the output and not measured again."""
    works = measurements(parameters)
    found = task_measure_all(works, parameters.output, parameters.cluster, reporter("evaluate", "denoisers x sets"))
    found = {work: found[work] for work in works}
    record = record_of(parameters, found)
    place = publish_record(parameters.output, record)
    report = task_write_denoiser_report(parameters, record, found)
    publish_markdown("denoiser-evaluation", lambda: f"# Denoisers\n\n{fidelity_markdown(record)}\n\n{report}")
    return record | {"record": place, "report": report}
