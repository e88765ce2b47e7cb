"""docs/reference/ says what the models say now, of every flow and of every kind of YAML file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flows.docs.__main__ import CHECKOUT, FLOWS, FOLDER, INDEX, all_flows, pages, reference, stale, write
from flows.docs.kinds import KINDS, SAID
from tasks.runtime.configuration import load_yaml
from tasks.training.stages import load_training

KINDS_BY_FOLDER = {kind.folder: kind for kind in KINDS}
EXAMPLES = sorted((CHECKOUT / "configs").glob("*/*.yaml"))


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def written_flows() -> set[str]:
    """Names of the flows in the sources: what a decorator that makes one is told, as ``name=`` or first."""
    found = set()
    for path in (CHECKOUT / "flows").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") in ("flow", "pipeline"):
                    told = [*(k.value for k in mark.keywords if k.arg == "name"), *mark.args]
                    found.add(next(str(t.value) for t in told if isinstance(t, ast.Constant)))
    return found


def deployed_flows() -> set[str]:
    """Functions that deployments start."""
    return set(re.findall(r"entrypoint: flows/\w+\.py:(\w+)", (CHECKOUT / "infra" / "prefect.yaml").read_text()))


def test_the_committed_pages_say_what_the_models_say(made: dict[str, str]) -> None:
    committed = {name: (FOLDER / name).read_text() if (FOLDER / name).exists() else None for name in made}
    different = [name for name in made if committed[name] != made[name]]
    different += [location.name for location in stale(FOLDER, made)]
    assert not different, f"run make reference: {', '.join(different)} differ in docs/reference/"


def test_pages_are_written_once_and_old_ones_go(tmp_path: Path, made: dict[str, str]) -> None:
    (tmp_path / "environment.md").write_text("# By hand\n")
    (tmp_path / "gone.md").write_text(made[INDEX])
    (tmp_path / FLOWS).write_text("an old page")
    assert set(write(tmp_path)) == {*made, "gone.md"}
    assert {location.name for location in tmp_path.iterdir()} == {*made, "environment.md"}
    assert (tmp_path / FLOWS).read_text() == made[FLOWS]
    assert write(tmp_path) == []


def test_every_flow_is_on_the_page_with_its_parameters(made: dict[str, str]) -> None:
    names = written_flows()
    assert {flow.name for flow in all_flows()} == names
    assert deployed_flows() <= names
    assert len(names) > 20
    assert deployed_flows()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", made[FLOWS], re.MULTILINE | re.DOTALL))
    for name in names:
        assert "| key |" in sections[name] or "`parameters` has the keys of" in sections[name], name


def test_every_kind_of_configuration_has_a_page_with_its_examples(made: dict[str, str]) -> None:
    folders = {location.name for location in (CHECKOUT / "configs").iterdir() if location.is_dir()}
    assert folders == set(KINDS_BY_FOLDER)
    for example in EXAMPLES:
        assert (
            f"[{example.name}](../../configs/{example.parent.name}/{example.name}) |"
            in made[f"{example.parent.name}.md"]
        )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_are_what_their_page_describes(example: Path) -> None:
    models = list(KINDS_BY_FOLDER[example.parent.name].files.values())
    if len(models) == 1:
        load_yaml(example, models[0])
    else:
        assert type(load_training(str(example))) in models


def test_every_key_is_described() -> None:
    assert sorted(reference().undescribed()) == sorted(SAID), (
        "give these keys a Field description; only sources whose bytes are part of digests are described in kinds.py"
    )


def test_what_takes_anything_is_described_by_a_model() -> None:
    assert reference().open_keys() == ["ClusterConfig.options"]  # arguments of other people's classes


def test_links_lead_somewhere(made: dict[str, str]) -> None:
    headings = {
        name: {
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line[:1] == "#"
        }
        for name, text in made.items()
    }
    for name, text in made.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, location = target.partition("#")
            assert not file or (FOLDER / file).exists(), (name, target)
            if location and (file or name) in made:
                assert location in headings[file or name], (name, target)


def test_environment_variables_that_are_read_are_on_their_page() -> None:
    page = (FOLDER / "environment.md").read_text()
    read = set()
    for layer in ("flows", "tasks", "pngmodel"):
        for path in (CHECKOUT / layer).rglob("*.py"):
            read |= set(re.findall(r'environ(?:\.get\(|\.setdefault\(|\[)\s*"(\w+)"', path.read_text()))
    assert {"PREFECT_API_URL", "RANK", "AWS_ENDPOINT_URL"} <= read
    missing = {name for name in read if f"`{name}`" not in page}
    assert not missing, f"say in docs/reference/environment.md what these are for: {', '.join(sorted(missing))}"
