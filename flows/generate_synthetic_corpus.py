"""Flow: manufacture a corpus of noisy/clean pairs. The main job of the product; run it again to resume."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow

from tasks.artifacts import log, publish_markdown, table
from tasks.evaluation import EvaluateParameters, task_evaluate_noise
from tasks.gate import load_rules, task_gate
from tasks.progress import reporter
from tasks.publication import HEADLINE, already_published, refuse_other_rules, task_manifest_rows, task_publish
from tasks.reporting import markdown_table
from tasks.synthesis import CorpusParameters, evaluated_pairs, task_make_shards, task_plan_corpus

_EVALUATED_PAIRS = 8


@flow(name="generate_synthetic_corpus", flow_run_name="corpus-{parameters.output}", persist_result=False)
def generate_synthetic_corpus(parameters: CorpusParameters) -> dict[str, Any]:
    """Plan -> shards -> quality gate -> publish.

    Killed at any moment and run again with the same parameters it finishes without redoing published shards, and
    the corpus is byte-identical to that of an uninterrupted run. Returns place, report, pairs, digest and figures.
    """
    rules = load_rules(parameters.gate)  # a wrong gate file stops the run before the work, not after it
    plan = task_plan_corpus(parameters)
    log(f"plan: {plan.layout.pairs} pairs in {plan.layout.shards} shards, model {plan.recipe['model'][:12]}")
    refuse_other_rules(parameters.output, rules)
    shards = task_make_shards(plan, reporter("generate", "pairs"))
    published = None if shards["made"] else already_published(plan)
    if published is None:
        rows = task_manifest_rows(plan)
        rejected = task_gate(parameters.output, rows, rules)
        evaluation = task_evaluate_noise(
            EvaluateParameters(
                model=parameters.model,
                limit=_EVALUATED_PAIRS,
                device=parameters.device,
                **evaluated_pairs(plan),
            ),
            reporter("evaluate", "pairs"),
        )
        published = task_publish(plan, rows, rejected, evaluation)
    result = asdict(published) | {"shards": shards}
    summary = {k: v for k, v in result.items() if k != "figures"}
    figures = markdown_table(published.figures, HEADLINE)
    publish_markdown("corpus", f"# Corpus\n\n{table(summary)}\n## Figures\n\n{figures}", "a published corpus")
    return result
