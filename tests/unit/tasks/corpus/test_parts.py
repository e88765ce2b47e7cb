"""A corpus in parts: any order, side by side, and no publication before all are there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pngmodel.errors import UserError
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.maintenance import recorded_parameters, require_parts
from tasks.corpus.plan import CorpusParameters, part_of, plan_corpus
from tasks.stores.corpus_store import Corpus

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Copy = Callable[..., Path]
Tree = Callable[[Any], dict[str, bytes]]
ROOT = Path(__file__).parents[4]
SHARDS_ONLY = """
import sys
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, plan_corpus
print(make_corpus_shards(plan_corpus(CorpusParameters.model_validate_json(sys.argv[1]))))
"""
TO_THE_END = """
import sys
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.corpus.gate import load_rules
from tasks.corpus.publish import judge, publish
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, evaluated_pairs, plan_corpus
plan = plan_corpus(CorpusParameters.model_validate_json(sys.argv[1]))
make_corpus_shards(plan)
with open_cluster(ClusterConfig()) as cluster:
    judged = judge(plan, load_rules("default", baseline=True), cluster)
measured = EvaluateParameters(model=plan.parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
print(publish(plan, judged, evaluate_noise(measured)).digest)
"""


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_parts_share_out_every_shard_once_and_evenly(of: int) -> None:
    shares = [part_of(f"{i}/{of}", 11) for i in range(1, of + 1)]
    assert sorted(k for share in shares for k in share) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("parts", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", " 1/2", ""])
def test_a_part_that_is_none_is_named(parts: str) -> None:
    with pytest.raises(UserError, match="--parts: "):
        part_of(parts, 4)


def test_parts_in_any_order_make_the_same_corpus(
    parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path
) -> None:
    published(tmp_path / "whole")
    url = str(tmp_path / "c")
    assert make_corpus_shards(plan_corpus(parameters(url, parts="3/3"))) == {"made": 1, "kept": 0}
    assert make_corpus_shards(plan_corpus(parameters(url, parts="1/3"))) == {"made": 2, "kept": 0}
    with pytest.raises(UserError, match=r"2 of 5 parts are missing.*parts/00001\.parquet, parts/00004\.parquet"):
        require_parts(url)
    assert not (tmp_path / "c" / "corpus.json").exists()
    assert make_corpus_shards(plan_corpus(parameters(url, parts="2/3"))) == {"made": 2, "kept": 0}
    require_parts(url)
    taken_up = recorded_parameters(url)
    assert taken_up.parts is None
    assert made(taken_up)[1] == {"made": 0, "kept": 5}
    assert tree(url) == tree(tmp_path / "whole")


def processes(script: str, asked: list[CorpusParameters]) -> list[str]:
    """What python prints, started for all of them at once."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, parameters.model_dump_json()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for parameters in asked
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), answers
    return [answer[0].strip() for answer in answers]


def test_two_parts_at_once(parameters: Make, made: Made, published: Copy, tree: Tree, tmp_path: Path) -> None:
    published(tmp_path / "whole")
    url = str(tmp_path / "c")
    found = processes(SHARDS_ONLY, [parameters(url, parts=f"{part}/2") for part in (1, 2)])
    assert found == ["{'made': 3, 'kept': 0}", "{'made': 2, 'kept': 0}"]
    made(recorded_parameters(url))
    assert tree(url) == tree(tmp_path / "whole")


def test_two_runs_of_one_corpus_at_once(parameters: Make, published: Copy, tree: Tree, tmp_path: Path) -> None:
    digest = Corpus.open(str(published(tmp_path / "whole", 2))).digest
    asked = parameters(tmp_path / "c", scale=2)
    assert processes(TO_THE_END, [asked, asked]) == [digest] * 2
    assert tree(tmp_path / "c") == tree(tmp_path / "whole")
