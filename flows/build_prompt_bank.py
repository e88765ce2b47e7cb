"""Flow: extract the prompts of all references into a prompt bank. If interrupted, run it again to resume."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.models.parameters import BankParameters
from tasks.models.prompt_bank import task_build_bank
from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.progress import reporter


@pipeline("build_prompt_bank", BankParameters, lambda p: f"prompts {tail(p.output)}: {tail(p.references)}")
def build_prompt_bank(parameters: BankParameters) -> dict[str, Any]:
    """Write a prompt bank, keeping finished shards of an earlier run; returns entries, shards and digest."""
    result = task_build_bank(parameters, reporter("prompts", "references"))
    publish_markdown("prompts", f"# Prompt bank\n\n{table(result)}")
    return result
