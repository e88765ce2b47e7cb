"""What `pngnoise generate` does with a baseline, without Prefect: a process to kill that starts in seconds.

python runner.py OUTPUT CLEAN CLUSTER [PART/PARTS]
"""

from __future__ import annotations

import sys

from tasks.clusters import load_cluster, open_cluster
from tasks.evaluation import EvaluateParameters, evaluate_noise
from tasks.gate import load_rules
from tasks.publication import already_published, judge, publish
from tasks.shards import make_corpus_shards
from tasks.synthesis import CorpusParameters, evaluated_pairs, plan_corpus


def main(output: str, clean: str, cluster: str, parts: str | None = None) -> None:
    parameters = CorpusParameters(
        output=output,
        model="heteroscedastic",
        clean=clean,
        crop=32,
        shard=16,
        scale=2,
        parts=parts,
        cluster=load_cluster(cluster),
    )
    plan = plan_corpus(parameters)
    make_corpus_shards(plan)
    if parts is None and already_published(plan) is None:
        with open_cluster(parameters.cluster) as opened:
            judged = judge(plan, load_rules(parameters.gate, baseline=True), opened)
        measured = EvaluateParameters(model=parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
        publish(plan, judged, evaluate_noise(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
