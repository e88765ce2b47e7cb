"""Flow: generate a corpus of noisy/clean pairs. The main job of the product; rerun to resume."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Any, TypeVar, cast

from prefect.utilities.annotations import quote

from flows.pipeline import part, pipeline, tail
from tasks.corpus.gate import GateRules, load_rules
from tasks.corpus.generate import ShardStream, groups, task_begin, task_make_pending, task_pending
from tasks.corpus.parameters import CorpusParameters
from tasks.corpus.plan import CorpusPlan, evaluated_pairs, is_baseline, task_plan_corpus
from tasks.corpus.publish import (
    HEADLINE,
    Published,
    already_published,
    name_alias,
    refuse_other_rules,
    samples_picture,
    task_judge,
    task_publish,
)
from tasks.evaluation.noise import task_evaluate_noise
from tasks.evaluation.parameters import EvaluateParameters
from tasks.models.events import announce_corpus
from tasks.reports.tables import markdown_table
from tasks.runtime.artifacts import log, publish_link, publish_markdown, publish_picture, table
from tasks.runtime.clusters import Cluster, open_cluster
from tasks.runtime.progress import cumulative_reporter, reporter

_EVALUATED_PAIRS = 8
Value = TypeVar("Value")


def _unseen(value: Value) -> Value:
    """Quote an argument of a Prefect task, because Prefect would search every image of a plan for futures."""
    return cast(Value, quote(value))


def _run_name(p: CorpusParameters) -> str:
    return f"corpus {tail(p.output)}: {tail(p.model)} on {tail(p.clean)}, scale {p.scale}{part(p.parts)}"


@pipeline(
    "generate_synthetic_corpus",
    CorpusParameters,
    _run_name,
)
def generate_synthetic_corpus(parameters: CorpusParameters) -> dict[str, Any]:
    """Plan, generate shards, apply the quality gate, publish.

    If interrupted, rerun with the same parameters: it resumes and the result is byte-identical. With ``parts`` it makes
    its share of the shards; a run without ``parts`` or `pngnoise finalise` publishes.

    Returns:
        Location, report, pairs, digest and metrics.
    """
    rules = load_rules(parameters.gate, baseline=is_baseline(parameters))  # fail early if the file is invalid
    plan = task_plan_corpus(parameters)
    log(f"plan: {plan.layout.pairs} pairs in {plan.layout.shards} shards, model {plan.recipe['model']}")
    if (used := plan.unkept_references) is not None:
        log(
            f"{used} references exceed the prompt cache of a process; create a prompt bank with `pngnoise prompts` to "
            "extract each prompt only once"
        )
    refuse_other_rules(plan, rules)
    with open_cluster(parameters.cluster) as cluster:
        shards = _generate(plan, cluster)
        if parameters.parts is not None:
            return {"url": parameters.output, "parts": parameters.parts, "shards": shards}
        published = None if shards["made"] else already_published(plan)
        if published is not None:
            name_alias(plan, published)
        else:
            published = _publish(plan, rules, cluster)
    announce_corpus(published.url, published.digest, model=parameters.model, pairs=published.pairs)
    _publish_artifacts(plan, published, shards)
    return asdict(published) | {"shards": shards}


def _publish_artifacts(plan: CorpusPlan, published: Published, shards: dict[str, int]) -> None:
    """Artifacts of the run: counts, metrics of model and baselines, pictures, and the location of the report."""

    def summary() -> str:
        facts = {k: v for k, v in asdict(published).items() if k != "metrics"}
        facts |= {f"shards {name}": number for name, number in shards.items()}
        return f"# Corpus\n\n{table(facts)}\n## Metrics\n\n{markdown_table(published.metrics, HEADLINE)}"

    publish_markdown("corpus", summary, "a published corpus")
    if plan.parameters.mode != "recipe":
        publish_picture("corpus-samples", lambda: samples_picture(plan), "clean, synthetic noisy, noise times 4")
    publish_link("corpus-report", published.report, "report with plots")


def _generate(plan: CorpusPlan, cluster: Cluster) -> dict[str, int]:
    """Generate the missing shards, with one Prefect task per batch of shards."""
    task_begin(_unseen(plan))
    if plan.parameters.mode == "recipe":
        return {"made": 0, "kept": 0}
    todo = task_pending(_unseen(plan), _unseen(cluster), reporter("look", "shards"))
    report = cumulative_reporter("generate", "pairs", sum(len(plan.layout.rows(index)) for index in todo))
    # Use one stream of shards for all batches, so that the device is not idle between them.
    with closing(ShardStream(plan, todo, cluster)) as stream:
        for group in groups(todo):
            make = task_make_pending.with_options(task_run_name=f"shards-{group[0]}-{group[-1]}")
            make(_unseen(plan), _unseen(group), _unseen(cluster), report, _unseen(stream))
    return {"made": len(todo), "kept": len(plan.mine) - len(todo)}


def _publish(plan: CorpusPlan, rules: GateRules, cluster: Cluster) -> Published:
    judged = task_judge(_unseen(plan), rules, _unseen(cluster))
    evaluation = task_evaluate_noise(
        EvaluateParameters(
            model=plan.parameters.model,
            limit=_EVALUATED_PAIRS,
            device=plan.parameters.device,
            **evaluated_pairs(plan),
        ),
        reporter("evaluate", "pairs"),
    )
    return task_publish(_unseen(plan), _unseen(judged), _unseen(evaluation))
