"""Flow: check every byte of a corpus, or of some of its shards, against its digests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.corpus.maintenance import task_verify_corpus
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.runtime.progress import reporter


class VerifyParameters(BaseModel):
    """Which corpus, and how much of it."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(description="folder, URL or alias of a published corpus")
    sample: int | None = Field(None, ge=1, description="only so many shards, drawn by the seed; default all")
    seed: int = Field(0, ge=0, description="which shards are drawn")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="where shards are checked"
    )


@pipeline("verify_corpus", VerifyParameters, lambda p: f"verify {tail(p.corpus)}")
def verify_corpus(parameters: VerifyParameters) -> dict[str, Any]:
    """Check shards side by side; fails with the names of what is missing or damaged."""
    with open_cluster(parameters.cluster) as cluster:
        result: dict[str, Any] = task_verify_corpus(
            parameters.corpus,
            cluster,
            sample=parameters.sample,
            seed=parameters.seed,
            progress=reporter("verify", "shards"),
        )
    publish_markdown("verify-corpus", f"# Corpus verified\n\n{table(result)}")
    return result
