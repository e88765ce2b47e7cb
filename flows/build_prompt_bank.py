"""Flow: extract the prompts of all references once and keep them; run it again to resume."""

from __future__ import annotations

from typing import Any

from flows.running import pipeline, tail
from tasks.artifacts import publish_markdown, table
from tasks.progress import reporter
from tasks.promptbank import BankParameters, task_build_bank


@pipeline("build_prompt_bank", BankParameters, lambda p: f"prompts {tail(p.output)}: {tail(p.references)}")
def build_prompt_bank(parameters: BankParameters) -> dict[str, Any]:
    """Write the prompt bank; finished shards of an earlier run are kept. Returns entries, shards, digest."""
    result = task_build_bank(parameters, reporter("prompts", "references"))
    publish_markdown("prompts", f"# Prompt bank\n\n{table(result)}")
    return result
