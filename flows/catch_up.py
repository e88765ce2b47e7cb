"""Flow: announce registered models without an evaluation, in case the event of their training was lost."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.models.catch_up import task_announce_unevaluated
from tasks.runtime.artifacts import publish_markdown, table


class CatchUpParameters(BaseModel):
    """Parameters of catch_up."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1, description="models to check, REGISTRY/NAME each")


@pipeline("catch_up", CatchUpParameters, lambda p: f"catch-up {', '.join(tail(m, 1) for m in p.models)}")
def catch_up(parameters: CatchUpParameters) -> dict[str, Any]:
    """Announce the versions without an evaluation as trained. Returns their names by model."""
    announced = {model: task_announce_unevaluated(model) for model in parameters.models}
    summary = {model: ", ".join(versions) or "all evaluated" for model, versions in announced.items()}
    publish_markdown("catch-up", f"# Models without an evaluation\n\n{table(dict(summary))}")
    return {"announced": announced}
