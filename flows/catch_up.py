"""Flow: tell again of models that were trained and registered and that no evaluation knows: their event was lost."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.pipeline import pipeline, tail
from tasks.models.catch_up import task_announce_unevaluated
from tasks.runtime.artifacts import publish_markdown, table


class CatchUpParameters(BaseModel):
    """Where to look."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1, description="REGISTRY/NAME of each model to look after")


@pipeline("catch_up", CatchUpParameters, lambda p: f"catch-up {', '.join(tail(m, 1) for m in p.models)}")
def catch_up(parameters: CatchUpParameters) -> dict[str, Any]:
    """Returns the versions that were told again, by model. What is evaluated already is left alone."""
    told = {model: task_announce_unevaluated(model) for model in parameters.models}
    shown = {model: ", ".join(versions) or "all are evaluated" for model, versions in told.items()}
    publish_markdown("catch-up", f"# Models without an evaluation\n\n{table(dict(shown))}")
    return {"told": told}
