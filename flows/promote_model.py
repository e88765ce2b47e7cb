"""Flow: make a version of a registry the champion, if its evaluation passes the gate."""

from __future__ import annotations

from typing import Any

from flows.running import pipeline, tail
from tasks.artifacts import log, publish_markdown
from tasks.events import PROMOTED, announce_model, model_kind
from tasks.promotion import PromoteParameters, findings_table, task_promote


@pipeline("promote_model", PromoteParameters, lambda p: f"promote {tail(p.version)}")
def promote_model(parameters: PromoteParameters) -> dict[str, Any]:
    """Returns the move of the champion; fails, with the figures and limits in words, when the gate does."""
    move = task_promote(parameters)
    publish_markdown("promotion", f"# {parameters.version} is champion\n\n{move['reason']}\n\n{findings_table(move)}")
    log(f"{parameters.version}: digest {move['digest']}, record {move['record']}, was version {move['previous']}")
    kind = model_kind(parameters.version)
    announce_model(PROMOTED, kind, model=parameters.version, digest=move["digest"], previous=move["previous"])
    return move
