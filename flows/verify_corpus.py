"""Flow: verify all bytes of a corpus, or of a sample of its shards, against its digests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.corpus.maintenance import task_verify_corpus
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.runtime.progress import reporter


class VerifyParameters(BaseModel):
    """Parameters of verify_corpus."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(description="folder, URL or alias of a published corpus")
    sample: int | None = Field(None, ge=1, description="number of randomly selected shards to verify; default all")
    seed: int = Field(0, ge=0, description="seed of the selection of shards")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="cluster; one task per shard"
    )


@pipeline("verify_corpus", VerifyParameters, lambda p: f"verify {tail(p.corpus)}")
def verify_corpus(parameters: VerifyParameters) -> dict[str, Any]:
    """Verify shards in parallel; fails with the names of missing or damaged files."""
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
