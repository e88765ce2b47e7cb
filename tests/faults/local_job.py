"""The main job on local disks without Prefect: a process that starts in seconds and ends as the command line does.

python local_job.py IMAGES FOLDER TRAINING
"""

from __future__ import annotations

import sys
from pathlib import Path

from flows.console import user_errors
from tasks.clusters import ClusterConfig, open_cluster
from tasks.evaluation import EvaluateParameters, evaluate_noise
from tasks.gate import load_rules
from tasks.ingest import ingest
from tasks.patches import Geometry, extract_patches
from tasks.publication import judge, publish
from tasks.shards import make_corpus_shards
from tasks.synthesis import CorpusParameters, evaluated_pairs, plan_corpus
from tasks.trainings import load_training


def main(images: str, folder: str, training: str) -> None:
    """Every stage; what an earlier call finished is found done."""
    catalogue, patches, corpus = (f"{folder}/{name}" for name in ("catalogue", "patches", "corpus"))
    ingest(images, "folders", catalogue)
    extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=16)
    config = load_training(training)
    config.use_stores([patches])
    run = config.begin(Path(folder) / "training")
    run.publish(run.train(), "a test")
    asked = CorpusParameters(
        output=corpus, model="heteroscedastic", references=patches, clean=f"{images}/clean", crop=32, shard=8
    )
    plan = plan_corpus(asked)
    make_corpus_shards(plan)
    with open_cluster(ClusterConfig()) as cluster:
        judged = judge(plan, load_rules(asked.gate, baseline=True), cluster)
    measured = EvaluateParameters(model=asked.model, limit=2, baselines=False, **evaluated_pairs(plan))
    publish(plan, judged, evaluate_noise(measured))


if __name__ == "__main__":
    with user_errors():
        main(*sys.argv[1:])
