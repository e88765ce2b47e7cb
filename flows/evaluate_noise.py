"""Flow: evaluate a noise generator on real pairs, next to the floor and the baselines."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.corpus.publish import HEADLINE
from tasks.evaluation.noise import task_evaluate_noise, task_write_report
from tasks.evaluation.parameters import EvaluateParameters
from tasks.models.events import EVALUATED, announce_model
from tasks.reports.tables import examples_picture, markdown_table, simplified_note
from tasks.runtime.artifacts import log, publish_link, publish_markdown, publish_picture
from tasks.runtime.placeholders import triggers_promotion
from tasks.runtime.progress import reporter
from tasks.runtime.provenance import commit
from tasks.stores.model_registry import is_version


@pipeline(
    "evaluate_noise", EvaluateParameters, lambda p: f"evaluate-{p.reference} {tail(p.model)} on {tail(p.references)}"
)
def evaluate_noise(parameters: EvaluateParameters) -> dict[str, Any]:
    """Compute noise metrics; returns protocol, digests, and metrics per generator and per camera."""
    evaluation = task_evaluate_noise(parameters, reporter("evaluate", "pairs"))
    if parameters.report and evaluation.examples:
        task_write_report(evaluation, parameters.report)
    record = evaluation.record
    digest = record["model"]["digest"]
    log(f"{parameters.model}: digest {digest}, references {record['references']}")
    if parameters.output and triggers_promotion(parameters.output) and is_version(parameters.model):
        announce_model(EVALUATED, "noise", model=parameters.model, digest=digest, record=parameters.output)
    publish_markdown("noise-evaluation", lambda: _metrics_page(record))
    if evaluation.examples:
        publish_picture("noise-examples", lambda: examples_picture(evaluation), "real and synthetic noise")
    if parameters.report:
        publish_link("noise-report", parameters.report, "report with plots")
    return record | {"name": parameters.model, "commit": commit()}


def _metrics_page(record: dict[str, Any]) -> str:
    metrics, note = markdown_table(record["metrics"], HEADLINE), simplified_note(record)
    return f"# Noise evaluation ({record['protocol']})\n\n{metrics}{note}"
