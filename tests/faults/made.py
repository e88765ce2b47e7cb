"""A corpus without Prefect, for processes of tests that start in seconds."""

from __future__ import annotations

import json

from tasks.corpus.gate import load_rules
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, evaluated_pairs, plan_corpus
from tasks.corpus.publish import Published, already_published, judge, publish
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.runtime.clusters import ClusterConfig, open_cluster


def make(images: str, output: str, asked: str = "{}") -> Published:
    """The corpus of a folder of pairs at ``output``; ``asked``: further parameters as JSON."""
    parameters = CorpusParameters(
        output=output, model="heteroscedastic", clean=f"{images}/clean", crop=32, shard=8, **json.loads(asked)
    )
    plan = plan_corpus(parameters)
    make_corpus_shards(plan)
    if (found := already_published(plan)) is not None:
        return found
    with open_cluster(ClusterConfig()) as cluster:
        judged = judge(plan, load_rules(parameters.gate, baseline=True), cluster)
    measured = EvaluateParameters(model=parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
    return publish(plan, judged, evaluate_noise(measured))
