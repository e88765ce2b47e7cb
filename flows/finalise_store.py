"""Flow: check and commit a patch store or corpus that was written in parts."""

from __future__ import annotations

from typing import Any

from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.pipeline import pipeline, tail
from tasks.corpus.maintenance import recorded_parameters, require_parts
from tasks.corpus.parameters import FinaliseParameters
from tasks.datasets.extraction import task_finalise
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter
from tasks.stores.corpus_store import KIND as CORPUS
from tasks.stores.kinds import planned_kind


@pipeline("finalise_store", FinaliseParameters, lambda p: f"finalise {tail(p.store)}")
def finalise_store(parameters: FinaliseParameters) -> dict[str, Any]:
    """Check all shards and publish the store; fails with the missing parts. Returns counts and digest."""
    if planned_kind(parameters.store) == CORPUS:
        require_parts(parameters.store)
        return generate_synthetic_corpus(recorded_parameters(parameters.store, cluster=parameters.cluster))
    result = task_finalise(parameters.store, cluster=parameters.cluster, progress=reporter("check", "shards"))
    publish_markdown("patches", f"# Patches\n\n{table(result)}")
    return result
