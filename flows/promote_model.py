"""Flow: make a version of a registry the champion, if its evaluation passes the gate."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.artifacts import publish_markdown
from tasks.promotion import PromoteParameters, findings_table, task_promote


@flow(name="promote_model", flow_run_name="promote-{parameters.version}", persist_result=False)
def promote_model(parameters: PromoteParameters) -> dict[str, Any]:
    """Returns the move of the champion; fails, with the figures and limits in words, when the gate does."""
    move = task_promote(parameters)
    publish_markdown("promotion", f"# {parameters.version} is champion\n\n{move['reason']}\n\n{findings_table(move)}")
    return move
