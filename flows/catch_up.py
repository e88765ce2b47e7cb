"""Flow: announce registered models without an evaluation again, in case their event was lost."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.models.catch_up import task_announce_unevaluated
from tasks.models.parameters import CatchUpParameters
from tasks.runtime.artifacts import publish_markdown, table


@pipeline("catch_up", CatchUpParameters, lambda p: f"catch-up {', '.join(tail(m, 1) for m in p.models)}")
def catch_up(parameters: CatchUpParameters) -> dict[str, Any]:
    """Announce all versions without an evaluation; returns them by model."""
    announced = {model: task_announce_unevaluated(model) for model in parameters.models}
    shown = {model: ", ".join(versions) or "all are evaluated" for model, versions in announced.items()}
    publish_markdown("catch-up", f"# Models without an evaluation\n\n{table(dict(shown))}")
    return {"announced": announced}
