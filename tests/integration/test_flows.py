"""Every flow under Prefect: what it leaves in storage, and what in the run history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun

from flows.build_prompt_bank import build_prompt_bank
from flows.evaluate_c2st import evaluate_c2st
from flows.evaluate_noise import evaluate_noise
from flows.export_corpus import export_corpus
from flows.extract_patches import PatchParameters, extract_patches
from flows.finalise_store import FinaliseParameters, finalise_store
from flows.generate_synthetic_corpus import generate_synthetic_corpus
from flows.ingest_dataset import IngestParameters, ingest_dataset
from flows.train_noise_model import TrainParameters, train_noise_model
from pngmodel import NoiseGenerator
from pngmodel.errors import UserError
from tasks.corpus.exports.export import ExportParameters
from tasks.corpus.inspection import verify
from tasks.corpus.plan import CorpusParameters
from tasks.evaluation.c2st import C2stParameters
from tasks.evaluation.noise import EvaluateParameters
from tasks.models.prompt_bank import BankParameters
from tasks.runtime.clusters import ClusterConfig

pytestmark = pytest.mark.usefixtures("prefect_server")
INLINE = ClusterConfig(kind="inline")


def last_run(name: str) -> FlowRun:
    """The newest run of a flow."""

    async def ask() -> FlowRun:
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName
        from prefect.client.schemas.sorting import FlowRunSort

        async with get_client() as client:
            runs = await client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[name])), sort=FlowRunSort.START_TIME_DESC, limit=1
            )
            return runs[0]

    return asyncio.run(ask())


def artifact(key: str) -> str:
    """Text of the newest artifact with this key."""

    async def ask() -> str:
        async with get_client() as client:
            found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            return str(max(found, key=lambda a: a.created).data)

    return asyncio.run(ask())


def test_ingest(sidd_small: Path, tmp_path: Path) -> None:
    (sidd_small / "Data" / "0001_001_S6_00100_00060_3200_L" / "GT_SRGB_010.PNG").unlink()
    output = str(tmp_path / "catalogue")
    result = ingest_dataset(IngestParameters(source=str(sidd_small), adapter="sidd-small", output=output))
    assert result["pairs"] == 2
    run = last_run("ingest_dataset")
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["parameters"]["adapter"] == "sidd-small"
    assert "the clean image of" in artifact("ingest")


def test_patches(catalogue: str, tmp_path: Path) -> None:
    output = str(tmp_path / "store")
    result = extract_patches(PatchParameters(catalogue=catalogue, output=output, size=32, cluster=INLINE))
    assert result["patches"] == verify(output)["pairs"] == 36
    run = last_run("extract_patches")
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["parameters"]["size"] == 32
    assert output in artifact("patches")


def test_a_store_made_in_parts_is_finalised(catalogue: str, patches: str, tmp_path: Path, tree: Callable) -> None:
    output = str(tmp_path / "store")
    common = {"catalogue": catalogue, "output": output, "size": 32, "shard": 8, "cluster": INLINE}
    extract_patches(PatchParameters(parts="2/2", **common))
    with pytest.raises(UserError, match="4 of 8 parts are missing"):
        finalise_store(FinaliseParameters(store=output, cluster=INLINE))
    extract_patches(PatchParameters(parts="1/2", **common))
    result = finalise_store(FinaliseParameters(store=output, cluster=ClusterConfig(kind="local", workers=2)))
    assert (result["patches"], result["shards"]) == (36, 8)
    assert tree(output) == tree(patches)
    assert result["digest"] in artifact("patches")


def test_corpus_and_its_resumption(
    patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Callable[[Any], dict[str, bytes]]
) -> None:
    output = tmp_path / "corpus"
    parameters = CorpusParameters(
        output=str(output),
        model="heteroscedastic",
        references=patches,
        clean=str(folders[0] / "clean"),
        crop=32,
        shard=16,
    )
    result = generate_synthetic_corpus(parameters)
    assert result["shards"] == {"made": 3, "kept": 0}
    assert Path(result["report"]).is_file()
    assert {"model", "awgn", "floor"} <= set(result["metrics"])
    run = last_run("generate_synthetic_corpus")
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["parameters"]["model"] == "heteroscedastic"
    assert result["digest"] in artifact("corpus")
    before = tree(output)
    for name in ("corpus.json", "parts/00001.parquet"):
        (output / name).unlink()
    assert generate_synthetic_corpus(parameters)["shards"] == {"made": 1, "kept": 2}
    assert tree(output) == before
    again = generate_synthetic_corpus(parameters)
    assert again == result | {"shards": {"made": 0, "kept": 3}}
    assert tree(output) == before


def test_an_export_is_the_same_on_a_cluster(
    patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Callable[[Any], dict[str, bytes]]
) -> None:
    corpus = str(tmp_path / "corpus")
    common = {"references": patches, "clean": str(folders[0] / "clean"), "crop": 32, "shard": 16}
    generate_synthetic_corpus(CorpusParameters(output=corpus, model="heteroscedastic", **common))
    for name, cluster in (("here", INLINE), ("there", ClusterConfig(kind="local", workers=2))):
        output = str(tmp_path / name)
        result = export_corpus(ExportParameters(corpus=corpus, output=output, format="webdataset", cluster=cluster))
        assert (result["pairs"], result["shares"]) == (36, {"made": 3, "kept": 0})
        assert result["digest"] in artifact("export")
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    run = last_run("export_corpus")
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["parameters"]["format"] == "webdataset"


def test_a_prompt_bank_and_the_corpus_made_from_it(
    patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Callable[[Any], dict[str, bytes]]
) -> None:
    bank = str(tmp_path / "bank")
    parameters = BankParameters(references=patches, output=bank, model="heteroscedastic", shard=16)
    result = build_prompt_bank(parameters)
    assert (result["entries"], result["shards"]) == (36, {"made": 3, "kept": 0})
    assert verify(bank)["digest"] == result["digest"]
    run = last_run("build_prompt_bank")
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["parameters"]["shard"] == 16
    assert result["digest"] in artifact("prompts")
    common = {"model": "heteroscedastic", "clean": str(folders[0] / "clean"), "crop": 32}
    for name, references in (("direct", patches), ("banked", bank)):
        output = str(tmp_path / name)
        made = generate_synthetic_corpus(CorpusParameters(output=output, references=references, **common))
        assert {"model", "awgn", "floor"} <= set(made["metrics"])
    for array in ("clean", "noisy"):
        assert tree(tmp_path / "banked" / array) == tree(tmp_path / "direct" / array)


def test_evaluation(patches: str, tmp_path: Path) -> None:
    record = evaluate_noise(
        EvaluateParameters(
            model="awgn",
            references=patches,
            limit=2,
            baselines=False,
            output=str(tmp_path / "record.json"),
            report=str(tmp_path / "report.html"),
        )
    )
    written = json.loads((tmp_path / "record.json").read_text())
    assert record == written | {"name": "awgn", "commit": record["commit"]}
    assert "data:image/png" in (tmp_path / "report.html").read_text()
    run = last_run("evaluate_noise")
    assert run.state is not None
    assert run.state.is_completed()
    assert "noise-A" in artifact("noise-evaluation")


def test_c2st(catalogue: str, tmp_path: Path) -> None:
    output = tmp_path / "record.json"
    parameters = C2stParameters(
        model="awgn", references=catalogue, hold_out="image", steps=2, batch=4, seeds=1, output=str(output)
    )
    record = evaluate_c2st(parameters)
    assert record == json.loads(output.read_text()) | {"name": "awgn", "commit": record["commit"]}
    run = last_run("evaluate_c2st")
    assert run.state is not None
    assert run.state.is_completed()
    assert "c2st-A" in artifact("c2st")
    assert "floor (perfect generator) | 0.500" in artifact("c2st")


def test_a_user_error_leaves_a_failed_run_with_its_words(tmp_path: Path) -> None:
    parameters = EvaluateParameters(model="awgn", references=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="is not a source of references"):
        evaluate_noise(parameters)
    run = last_run("evaluate_noise")
    assert run.state is not None
    assert run.state.is_failed()
    assert "is not a source of references" in str(run.state.message)


@pytest.fixture
def configuration(patches: str, tmp_path: Path) -> Path:
    """A training of seconds."""
    stage = {"batch": 2, "crop": 16, "learning_rate": 1e-3, "checkpoint_every": 2, "log_every": 1}
    path = tmp_path / "smallest.yaml"
    content = {
        "preset": "tiny",
        "model": {"channels": [4, 4, 8, 8], "width": 24, "depth": 1, "heads": 2},
        "data": {"stores": [patches], "region": 32},
        "pae": stage | {"steps": 3},
        "pdit": stage | {"steps": 4, "train_prompts": True},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_training_publishes_a_bundle_that_works(configuration: Path, tmp_path: Path, pair: Callable) -> None:
    output = tmp_path / "run"
    result = train_noise_model(TrainParameters(config=str(configuration), output=str(output)))
    assert (result["finished"], result["pae_steps"], result["pdit_steps"]) == (True, 3, 4)
    assert verify(result["bundle"])["digest"] == result["digest"]
    noisy, clean = pair(1, 64, 64)
    made = NoiseGenerator.from_pretrained(result["bundle"]).generate(clean, reference=(noisy, clean), seed=1)
    assert made.shape == clean.shape
    assert (np.asarray(made) != clean).mean() > 0.5
    run = last_run("train_noise_model")
    assert run.state is not None
    assert run.state.is_completed()
    assert result["digest"] in artifact("training")


def test_training_stopped_by_the_clock_resumes_to_the_same_weights(configuration: Path, tmp_path: Path) -> None:
    whole = train_noise_model(TrainParameters(config=str(configuration), output=str(tmp_path / "whole")))
    parameters = TrainParameters(config=str(configuration), output=str(tmp_path / "parts"), max_minutes=1e-6)
    results = [train_noise_model(parameters)]
    while not results[-1]["finished"]:
        assert len(results) < 20
        results.append(train_noise_model(parameters))
    assert len(results) > 2
    weights = [(tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert whole["finished"]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preset": "huge"}, r"smallest\.yaml.*'preset' is 'huge'"),
        ({"model": {"widht": 3}}, r"smallest\.yaml \(model\).*'widht'"),
        ({"data": {"stores": []}}, r"'data\.stores'"),
    ],
)
def test_training_configurations_are_checked(
    configuration: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    configuration.write_text(yaml.safe_dump(yaml.safe_load(configuration.read_text()) | change))
    with pytest.raises(UserError, match=words):
        train_noise_model(TrainParameters(config=str(configuration), output=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
