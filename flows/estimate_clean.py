"""Flow: the unpaired setting, a patch store whose clean images are denoised noisy images."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.denoising.parameters import EstimateParameters
from tasks.denoising.unpaired import task_estimate_clean
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline(
    "estimate_clean",
    EstimateParameters,
    lambda p: f"estimate-clean {tail(p.output)}: {tail(p.store)} by {tail(p.denoiser)}",
)
def estimate_clean(parameters: EstimateParameters) -> dict[str, Any]:
    """Write a patch store, keeping finished shards of an earlier run; returns patches, shards and digest."""
    result = task_estimate_clean(parameters, reporter("estimate", "shards"))
    publish_markdown("estimate", f"# Estimated clean images\n\n{table(result)}")
    return result
