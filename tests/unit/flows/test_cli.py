"""The command line: examples, exit codes, JSON, dry runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from cyclopts import App
from pydantic import BaseModel

from flows.cli.app import app
from flows.cli.console import show
from flows.docs.reference import all_flows, parameters_of
from pngmodel.bundle import save_bundle
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from tasks.corpus.parameters import CorpusParameters, RepairParameters
from tasks.denoising.parameters import TrainDenoiserParameters
from tests.commands import refused, run

Tree = Callable[[Any], dict[str, bytes]]


def leaves(parent: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command with its name; groups of commands are not commands."""
    for name in parent:
        if not name.startswith("-"):
            child = parent[name]
            yield from [((*path, name), child)] if child.default_command else leaves(child, (*path, name))


COMMANDS = dict(leaves(app))
MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    name: hints["parameters"]
    for name, command in COMMANDS.items()
    if "parameters" in (hints := get_type_hints(command.default_command.__wrapped__))  # type: ignore[union-attr]
}


def test_every_parameter_of_every_flow_is_an_option_of_a_command() -> None:
    assert {parameters_of(flow) for flow in all_flows()} <= {*MODELS.values()}
    assert {*MODELS.values()} >= {CorpusParameters, RepairParameters}
    assert len({*MODELS.values()}) == len(MODELS)


@pytest.mark.parametrize("name", MODELS, ids=" ".join)
def test_options_are_the_fields_with_their_names_choices_and_descriptions(name: tuple[str, ...]) -> None:
    arguments = {option: a for a in COMMANDS[name].assemble_argument_collection() for option in a.names}
    for field, about in MODELS[name].model_fields.items():
        argument = arguments[f"--{field.replace('_', '-')}"]
        assert about.description
        assert argument.parameter.help == about.description
        assert argument.required == about.is_required()
        if choices := MODELS[name].model_json_schema()["properties"][field].get("enum"):
            assert list(argument.get_choices() or ()) == [str(choice) for choice in choices]


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_options_have_one_name_everywhere(name: tuple[str, ...]) -> None:
    options = {option for a in COMMANDS[name].assemble_argument_collection() for option in a.names}
    old = ("out", "assign", "also", "full-scale", "crops", "repeat", "repeats", "draws")
    assert not options & {f"--{name}" for name in old}


def test_the_form_and_files_take_the_values_of_the_command_line() -> None:
    given = CorpusParameters(output="a", weights=["GP=2", "S6=1"], cluster="local")
    assert given.weights == {"GP": 2, "S6": 1}
    assert given.cluster.kind == "local"
    schema = CorpusParameters.model_json_schema()["properties"]
    assert {"type": "string"} in schema["cluster"]["anyOf"]  # Prefect's server checks a form against this
    training = TrainDenoiserParameters(real=["a"], arms=["png=corpora/a", "half=corpora/a,share=0.5,repeats=2"])
    assert [(a.name, a.synthetic, a.share, a.repeats) for a in training.arms] == [
        ("png", "corpora/a", 1.0, None),
        ("half", "corpora/a", 0.5, 2),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("generate --output c --scale 0", "--scale: 0 is below 1"),
        ("generate --output c --scale 0 --min-jpeg-quality 101", "--min-jpeg-quality: 101 is above 100; --scale: 0"),
        ("generate --output c --min-clean-std 1", "--min-clean-std: 1.0 is not below 1"),
        ("generate --output c --scale two", 'Invalid value for --scale: unable to convert "two" into int'),
        ("generate --output c --weights GP:2", "--weights: expected NAME=VALUE, found 'GP:2'"),
        ("generate --output c --weights GP=2 --reference-policy own", "--weights: requires at least one camera"),
        ("generate --output c --weights GP=-1", "--weights: must be numbers of 0 or more"),
        ("generate --output c --reference-policy unifrm", 'for --reference-policy. Choose from: "uniform"'),
        ("generate --output c --reference-polic own", "Did you mean --reference-policy?"),
        ("generate --output c --cluster many", "many: no such file"),
        ("generate --output c --alias a/b", "--alias: a/b is not valid: String should match pattern"),
        ("generate --scale 2", "--output requires an argument"),
        ("generate --output https://user:word@host/c", "contains a user, password or signature"),
        ("evaluate denoiser d --tests sidd", "--tests: expected NAME=LOCATION"),
        ("evaluate denoiser d --tests sidd=a@b,limit=0", "--tests: limit: 0 is below 1"),
        ("evaluate denoiser d --tests sidd=a,lmit=1", "--tests: lmit: 1 is not valid: Extra inputs"),
        ("train-denoiser c.yaml --real a --arms png=b,share=2", "--arms: share: 2 is above 1"),
        ("reproduce-paper --real a --tests t=a --tables all", 'Invalid value "all" for --tables'),
        ("verify nothing-there --sample 0", "--sample: 0 is below 1"),
        ("generrate", "Unknown command"),
    ],
)  # fmt: skip
def test_errors_name_the_option_as_it_was_typed(arguments: str, words: str) -> None:
    refused(run(*arguments.split()), words)


def test_help_of_every_command_needs_neither_torch_nor_prefect() -> None:
    code = (
        "import sys; from flows.cli.app import app, call\n"
        "for name in json.loads(sys.argv[1]): call([*name, '--help'])\n"
        "print({'torch', 'prefect', 'numpy', 'dask', 'distributed', 'zarr'} & {*sys.modules})"
    )
    names = [[], ["evaluate"], ["registry"], ["corpus"], *map(list, COMMANDS)]
    given = [sys.executable, "-c", f"import json; {code}", json.dumps(names)]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_commands_are_shown_in_groups() -> None:
    page = run("--help").stdout
    titles = ("Data", "Model", "Corpus", "Denoisers", "Evaluate", "Operate")
    places = [page.index(f"─ {title} ─") for title in titles]
    assert places == sorted(places)
    assert page.index(" ingest ") < page.index(" patches ") < page.index(" prompts ")


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_parses(name: tuple[str, ...]) -> None:
    result = run(*name, "--help")
    assert result.exit_code == 0
    example = " ".join(result.stdout.split("Example: ")[1].split())
    assert example.startswith(f"pngnoise {' '.join(name)}")
    command, bound, *_ = app.parse_args(example.removeprefix("pngnoise "), exit_on_error=False, print_error=False)
    assert command is COMMANDS[name].default_command
    assert not bound.kwargs.keys() - bound.signature.parameters.keys()


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
    assert "nothing: contains no corpus" in result.stderr.replace("\n", "")
    assert not list((tmp_path / "home").rglob("*.db"))  # no server was started for it


@pytest.mark.usefixtures("prefect_server")
def test_the_chain_prints_json_and_nothing_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    catalogue, store, corpus, bank = (tmp_path / n for n in ("catalogue", "store", "corpus", "bank"))
    source = ["--model", "heteroscedastic", "--references", store]
    chain: list[list[Any]] = [
        ["ingest", folders[0], "--adapter", folders[1], "--output", catalogue],
        ["patches", catalogue, "--size", 32, "--output", store, "--cluster", "inline"],
        ["generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--output", corpus],
        ["evaluate", "noise", *source, "--limit", 2, "--no-baselines"],
        ["evaluate", "c2st", "--model", "awgn", "--references", catalogue, "--hold-out", "image", "--steps", 2],
        ["prompts", store, "--model", "heteroscedastic", "--output", bank],
        *([verb, location] for verb in ("inspect", "verify") for location in (catalogue, store, corpus, bank)),
    ]
    chain.append(["export", corpus, "--format", "webdataset", "--output", tmp_path / "export"])
    found = {}
    for arguments in chain:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, (arguments, result)
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
        run("export", corpus, "--format", "zip", "--output", tmp_path / "x"),
        '"zip" for --format. Choose from: "webdataset"',
    )
    assert "AUC" in run(*chain[4]).stdout
    refused(run("evaluate", "noise", *source, "--reference", "D"), "no pair has a reference under protocol D")
    refused(run("evaluate", "noise", *source, "--reference", "E"), '"E" for --reference. Choose from: "A"')
    refused(run("generate", "--references", bank, "--output", tmp_path / "x"), "this prompt bank was made by the model")

    table = run("verify", corpus)
    assert table.exit_code == 0
    assert "no errors" in " ".join(table.stdout.split())  # the title wraps with a long path
    sampled = run("verify", corpus, "--sample", 1, "--cluster", "inline", "--json")
    assert json.loads(sampled.stdout)["verified"] is True
    refused(run("verify", store, "--sample", 1), "only a corpus is verified by sample")
    refused(run("verify", corpus, "--trusted", tmp_path / "key.pem"), "key.pem")
    again = run("generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--output", corpus)
    assert "shards made 0, kept 1" in again.stdout
    assert "report.html" in again.stdout

    refused(
        run("generate", *source, "--clean", folders[0] / "clean", "--crop", 32, "--seed", 1, "--output", corpus),
        "holds a different corpus",
        "seed",
    )


@pytest.mark.usefixtures("prefect_server")
def test_parts_and_finalise_print_the_same_keys(catalogue: str, tmp_path: Path) -> None:
    cut = ["patches", catalogue, "--size", 32, "--shard", 8, "--cluster", "inline", "--json"]
    for part in ("1/2", "2/2"):
        found = json.loads(run(*cut, "--parts", part, "--output", tmp_path / "s").stdout)
        assert (found["patches"], found["shards"], found["parts"]) == (18, 4, part)
        if part == "1/2":
            refused(run("finalise", tmp_path / "s", "--cluster", "inline"), "4 of 8 parts", "parts/00004.parquet")
    found = json.loads(run("finalise", tmp_path / "s", "--cluster", "inline", "--json").stdout)
    assert (found["patches"], found["shards"]) == (36, 8)
    assert "noise" in run("inspect", tmp_path / "s").stdout
    assert "{" not in run("inspect", tmp_path / "s").stdout  # words, no Python
    refused(run(*cut, "--parts", "3/2", "--output", tmp_path / "t"), "--parts: '3/2' is not")
    refused(run(*cut, "--preset", "sidd-512", "--output", tmp_path / "t"), "either the preset or these")
    refused(run(*cut, "--camera", "S9", "--output", tmp_path / "t"), "no image has camera 'S9'")
    assert not (tmp_path / "t").exists()


def test_schemas_are_printed() -> None:
    for kind, key in (("patch-store", "parts"), ("corpus", "files"), ("prompt-bank", "parts"), ("export", "parts")):
        assert json.loads(run("schema", kind).stdout)["properties"][key]
    refused(run("schema", "store"), "choose one of")


def test_a_dataset_without_a_usable_pair_answers_in_json_and_fails(
    prefect_server: None, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for path in (folders[0] / "clean").iterdir():
        path.write_bytes(b"")
    result = run("ingest", folders[0], "--adapter", folders[1], "--output", tmp_path / "c", "--json")
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
    refused(run("ingest", tmp_path / "none", "--adapter", "sidd-small", "--output", out), "none: does not exist")
    refused(run("ingest", root, "--adapter", "sid", "--output", out), "adapter 'sid' does not exist")
    for path in (root / "noisy").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    refused(run("ingest", root, "--adapter", rules, "--output", out), "street_100_1.png: is truncated")
    rules.write_text(rules.read_text() + "licnece: x\n")
    refused(run("ingest", root, "--adapter", rules, "--output", out), "rules.yaml", "'licnece'")
    refused(run("patches", tmp_path / "none", "--output", out, "--cluster", "inline"), "catalogue.json: missing")
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
    assert result.exit_code == 0, result
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
