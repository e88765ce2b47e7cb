"""Flow: evaluate denoisers on real pairs, and compare those trained on synthetic data with the control on real data."""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import Any

from flows.pipeline import pipeline, tail
from tasks.denoising.evaluation import measurements, publish_record, record_of, task_measure_all
from tasks.denoising.parameters import EvaluateDenoiserParameters
from tasks.denoising.report import fidelity_markdown, small_picture, task_write_denoiser_report
from tasks.models.denoisers import denoiser_digest
from tasks.models.events import EVALUATED, announce_model
from tasks.runtime.artifacts import log, publish_link, publish_markdown, publish_picture
from tasks.runtime.placeholders import triggers_promotion
from tasks.runtime.progress import reporter
from tasks.stores.model_registry import is_version


@pipeline(
    "evaluate_denoiser",
    EvaluateDenoiserParameters,
    lambda p: f"evaluate-denoisers {tail(p.output)}: {', '.join(t.name for t in p.tests)}",
)
def evaluate_denoiser(parameters: EvaluateDenoiserParameters) -> dict[str, Any]:
    """Compute PSNR and SSIM of all denoisers, reusing earlier results in the output; returns the evaluation record."""
    tasks = measurements(parameters)
    found = task_measure_all(tasks, parameters.output, parameters.cluster, reporter("evaluate", "denoisers x sets"))
    found = {task: found[task] for task in tasks}
    record = record_of(parameters, found)
    location = publish_record(parameters.output, record)
    report = task_write_denoiser_report(parameters, record, found)
    _announce_best(parameters, record, location)
    publish_markdown("denoiser-evaluation", lambda: f"# Denoisers\n\n{fidelity_markdown(record)}\n\n{report}")
    for test in parameters.tests:
        picture = partial(small_picture, test.name, record, found)
        publish_picture(f"denoised-{test.name}", picture, "best, median and worst image")
    publish_link("denoiser-report", report, "report with plots")
    return record | {"record": location, "report": report}


def _announce_best(parameters: EvaluateDenoiserParameters, record: dict[str, Any], location: str) -> None:
    """Announce the registry version with the highest mean PSNR as a candidate for promotion."""
    digests = {denoiser_digest(name): name for name in parameters.denoisers if is_version(name)}
    for found in record["denoisers"]:
        log(f"{found['arm']} seed {found['seed']}: digest {found['digest']}")
    if not triggers_promotion(location):
        return
    versions = [found for found in record["denoisers"] if found["digest"] in digests]
    if versions:
        best = max(versions, key=lambda v: fmean(v["metrics"][f"{test.name}.psnr"] for test in parameters.tests))
        digest = best["digest"]
        announce_model(EVALUATED, "denoiser", model=digests[digest], digest=digest, record=location)
