"""Flow: check every byte of a store against its digests, or random shards of a corpus."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.corpus.parameters import VerifyParameters
from tasks.corpus.signatures import task_verify_store
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline("verify_store", VerifyParameters, lambda p: f"verify {tail(p.location)}")
def verify_store(parameters: VerifyParameters) -> dict[str, Any]:
    """Verify the store; fails with the names of missing and damaged files. Returns kind, counts and digest."""
    result: dict[str, Any] = task_verify_store(parameters, reporter("verify", "shards"))
    publish_markdown("verify", f"# Verified\n\n{table(result)}")
    return result
