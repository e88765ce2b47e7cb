"""The command line: examples, exit codes, JSON, dry runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.console import show
from pngmodel.bundle import save_bundle
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS

COMMANDS = [
    ["evaluate", "noise"],
    ["evaluate", "c2st"],
    ["evaluate", "metadata"],
    ["evaluate", "denoiser"],
    *(["corpus", name] for name in ("inspect", "verify", "repair", "diff", "gc")),
    *(["registry", name] for name in ("add", "list", "show", "promote", "rollback", "fetch")),
    *([c.name or c.callback.__name__] for c in app.registered_commands if c.callback),
]
Tree = Callable[[Any], dict[str, bytes]]


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Result, *words: str) -> None:
    """Exit code 2, the words on standard error, no traceback, nothing on standard output."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "\nerror: " in "\n" + result.stderr  # below the progress bar
    for word in words:
        assert word in result.stderr


def test_all_commands_are_known() -> None:
    names = {" ".join(c) for c in COMMANDS}
    assert names == {
        "ingest",
        "patches",
        "prompts",
        "train",
        "train-denoiser",
        "estimate-clean",
        "submit",
        "reproduce-paper",
        "generate",
        "export",
        "quickstart",
        "inspect",
        "verify",
        "finalise",
        "schema",
        "evaluate noise",
        "evaluate c2st",
        "evaluate metadata",
        "evaluate denoiser",
        "registry add",
        "registry list",
        "registry show",
        "registry promote",
        "registry rollback",
        "registry fetch",
        "corpus inspect",
        "corpus verify",
        "corpus repair",
        "corpus diff",
        "corpus gc",
        "materialise",
        "deploy",
        "doctor",
        "metrics",
        "sign",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_parses(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"Example: pngnoise {' '.join(command)}" in " ".join(result.stdout.replace("`", "").split())


def test_the_console_script_needs_no_prefect_for_help_and_user_errors(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("pngnoise")
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "home")}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )

    assert "quickstart" in call("--help").stdout
    result = call("verify", str(tmp_path / "nothing"))
    assert result.returncode == 2
    assert result.stderr.startswith("error:")
    assert "nothing: holds no corpus" in result.stderr.replace("\n", "")
    assert not list((tmp_path / "home").rglob("*.db"))  # no server was started for it


@pytest.mark.usefixtures("prefect_server")
def test_the_chain_prints_json_and_nothing_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    catalogue, store, corpus, bank = (tmp_path / n for n in ("catalogue", "store", "corpus", "bank"))
    source = ["--model", "heteroscedastic", "--references", store]
    chain: list[list[Any]] = [
        ["ingest", folders[0], "--adapter", folders[1], "--out", catalogue],
        ["patches", catalogue, "--size", 32, "--out", store, "--cluster", "inline"],
        ["generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--output", corpus],
        ["evaluate", "noise", *source, "--limit", 2, "--no-baselines"],
        ["evaluate", "c2st", "--model", "awgn", "--references", catalogue, "--hold-out", "image", "--steps", 2],
        ["prompts", store, "--model", "heteroscedastic", "--out", bank],
        *([verb, location] for verb in ("inspect", "verify") for location in (catalogue, store, corpus, bank)),
    ]
    chain.append(["export", corpus, "--format", "webdataset", "--output", tmp_path / "export"])
    found = {}
    for arguments in chain:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        found[" ".join(map(str, arguments[: 1 + (arguments[0] == "evaluate")]))] = json.loads(result.stdout)
    assert found["ingest"]["pairs"] == 4
    assert found["patches"]["patches"] == found["generate"]["pairs"] == 36
    assert found["evaluate noise"]["protocol"] == "noise-A"
    assert found["evaluate c2st"]["protocol"] == "c2st-A"
    assert found["evaluate c2st"]["metrics"]["floor"]["auc"] == 0.5
    assert found["prompts"]["entries"] == 36
    assert found["verify"]["verified"] is True
    assert found["export"]["pairs"] == 36
    assert (tmp_path / "export" / "corpus-000000.tar").exists()
    refused(
        run("export", corpus, "--format", "zip", "--output", tmp_path / "x"), "format: Input should be 'webdataset'"
    )
    assert "AUC" in run(*chain[4]).stdout
    refused(run("evaluate", "noise", *source, "--reference", "D"), "no pair has a reference under protocol D")
    refused(run("evaluate", "noise", *source, "--reference", "E"), "reference: Input should be 'A', 'B', 'C' or 'D'")
    refused(run("generate", "--references", bank, "--output", tmp_path / "x"), "this prompt bank was made by the model")

    table = run("verify", corpus)
    assert table.exit_code == 0
    assert "all well" in table.stdout
    again = run("generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--output", corpus)
    assert "shards made 0, kept 1" in again.stdout
    assert "report.html" in again.stdout

    refused(
        run("generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--seed", 1, "--output", corpus),
        "holds another corpus",
        "seed",
    )


@pytest.mark.usefixtures("prefect_server")
def test_parts_and_finalise_print_the_same_keys(catalogue: str, tmp_path: Path) -> None:
    cut = ["patches", catalogue, "--size", 32, "--shard", 8, "--cluster", "inline", "--json"]
    for part in ("1/2", "2/2"):
        found = json.loads(run(*cut, "--parts", part, "--out", tmp_path / "s").stdout)
        assert (found["patches"], found["shards"], found["parts"]) == (18, 4, part)
        if part == "1/2":
            refused(run("finalise", tmp_path / "s", "--cluster", "inline"), "4 of 8 parts", "parts/00004.parquet")
    found = json.loads(run("finalise", tmp_path / "s", "--cluster", "inline", "--json").stdout)
    assert (found["patches"], found["shards"]) == (36, 8)
    assert "noise" in run("inspect", tmp_path / "s").stdout
    assert "{" not in run("inspect", tmp_path / "s").stdout  # words, no Python
    refused(run(*cut, "--parts", "3/2", "--out", tmp_path / "t"), "--parts is '3/2'")
    refused(run(*cut, "--preset", "sidd-512", "--out", tmp_path / "t"), "either the preset or these")
    refused(run(*cut, "--camera", "S9", "--out", tmp_path / "t"), "no image has camera 'S9'")
    assert not (tmp_path / "t").exists()


def test_schemas_are_printed() -> None:
    for kind, key in (("patch-store", "parts"), ("corpus", "files"), ("prompt-bank", "shards"), ("export", "parts")):
        assert json.loads(run("schema", kind).stdout)["properties"][key]
    refused(run("schema", "store"), "choose one of")


def test_a_dataset_without_a_usable_pair_answers_in_json_and_fails(
    prefect_server: None, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for path in (folders[0] / "clean").iterdir():
        path.write_bytes(b"")
    result = run("ingest", folders[0], "--adapter", folders[1], "--out", tmp_path / "c", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["pairs"] == 0
    assert {r["id"] for r in answer["rejected"]} == {"street_100_1", "street_800_2", "wall_100_1", "wall_100_2"}
    assert all("is empty" in r["reason"] for r in answer["rejected"])
    assert "no usable pair" in result.stderr


@pytest.mark.usefixtures("prefect_server")
def test_user_errors_of_flows(folders: tuple[Path, Path], patches: str, tmp_path: Path) -> None:
    root, rules = folders
    out = tmp_path / "out"
    refused(run("ingest", tmp_path / "none", "--adapter", "sidd-small", "--out", out), "none: does not exist")
    refused(run("ingest", root, "--adapter", "sid", "--out", out), "adapter 'sid' does not exist")
    for path in (root / "noisy").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    refused(run("ingest", root, "--adapter", rules, "--out", out), "street_100_1.png: is truncated")
    rules.write_text(rules.read_text() + "licnece: x\n")
    refused(run("ingest", root, "--adapter", rules, "--out", out), "rules.yaml", "'licnece'")
    refused(run("patches", tmp_path / "none", "--out", out, "--cluster", "inline"), "catalogue.json: missing")
    refused(run("train", tmp_path / "none.yaml", "--output", out), "none.yaml: no such file")
    assert not out.exists() or [p.name for p in out.iterdir()] == ["failed.json"]  # the reasons of all rejections


@pytest.mark.usefixtures("prefect_server")
def test_a_damaged_bundle_is_refused(patches: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    small = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}
    save_bundle(NoiseModel(PRESETS["tiny"].model_copy(update=small)), tmp_path / "bundle", training={}, card="")
    path = tmp_path / "bundle" / "config.json"
    path.write_text(path.read_text().replace('"depth": 1', '"depth": 2'))
    common = ["--model", tmp_path / "bundle", "--references", patches]
    made = run("generate", *common, "--clean", folders[0] / "clean", "--crop", 32, "--output", tmp_path / "c")
    refused(made, "config.json: the SHA-256 differs")
    refused(run("verify", tmp_path / "bundle"), "config.json")
    assert not (tmp_path / "c").exists()


def test_options_out_of_range_name_themselves(tmp_path: Path) -> None:
    refused(run("generate", "--output", tmp_path / "c", "--scale", 0), "scale")
    refused(run("generate", "--output", tmp_path / "c", "--weight", "GP:2"), "CAMERA=WEIGHT")
    refused(run("generate", "--output", tmp_path / "c", "--assign", "best"), "reference_policy")
    refused(run("generate", "--output", tmp_path / "c", "--cluster", "many"), "many: no such file")
    refused(run("inspect", tmp_path), "holds no corpus")


def test_dry_run_writes_nothing_and_starts_no_run(
    patches: str, folders: tuple[Path, Path], tmp_path: Path, tree: Tree
) -> None:
    before = tree(tmp_path)
    arguments = ["--model", "awgn", "--references", patches, "--clean", folders[0] / "clean", "--crop", 32]
    result = run("generate", *arguments, "--scale", 2, "--output", tmp_path / "c", "--dry-run", "--json")
    assert result.exit_code == 0
    metrics = json.loads(result.stdout)
    assert (metrics["pairs"], metrics["clean_patches"], metrics["shards"]) == (72, 36, 2)
    assert metrics["bytes_uncompressed"] == (72 + 36) * 3 * 32 * 32
    assert (
        metrics["objects"] == 2 + 1 + 2 + 4
    )  # noisy of two draws, clean of one; parts; manifest and shards of each draw
    assert 0 < metrics["bytes_stored"] < 2 * metrics["bytes_uncompressed"]
    assert metrics["seconds"] >= 0
    assert tree(tmp_path) == before


def test_paths_with_brackets_are_printed_as_they_are(patches: str, tmp_path: Path) -> None:
    location = Path(patches).rename(tmp_path / "[bold] store [")
    result = run("verify", location)
    assert result.exit_code == 0, result.exception
    assert "[bold] store [" in " ".join(result.stdout.split())


def test_a_long_list_says_how_much_of_it_is_not_shown(capsys: pytest.CaptureFixture) -> None:
    rejected = [{"id": f"pair{k}", "reason": "is empty"} for k in range(13)]
    show({"rejected": rejected, "digest": "0" * 90}, as_json=False, title="t")
    text = capsys.readouterr().out
    assert "pair9: is empty" in text
    assert "and 3 more" in text
    assert text.count("0") >= 90  # a digest can be copied whole


def test_doctor_tells_each_check() -> None:
    result = run("doctor", "--json")
    findings = json.loads(result.stdout)
    assert {"python", "torch", "pins", "disk", "shipped_samples", "shipped_model"} <= set(findings)
    problems = [v for v in findings.values() if v.startswith("PROBLEM")]
    assert result.exit_code == (2 if problems else 0)
