"""Flow: extract the prompts of all references once and keep them; run it again to resume."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.artifacts import publish_markdown, table
from tasks.progress import reporter
from tasks.promptbank import BankParameters, task_build_bank


@flow(name="build_prompt_bank", flow_run_name="prompts-{parameters.output}", persist_result=False)
def build_prompt_bank(parameters: BankParameters) -> dict[str, Any]:
    """Write the prompt bank; finished shards of an earlier run are kept. Returns entries, shards, digest."""
    result = task_build_bank(parameters, reporter("prompts", "references"))
    publish_markdown("prompts", f"# Prompt bank\n\n{table(result)}")
    return result
