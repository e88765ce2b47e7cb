"""docs/reference/ is generated from the models of all flows and of all kinds of YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import BaseModel, Field

from flows.docs.reference import CHECKOUT, FOLDER, PAGES, _nested, _sections, all_flows, parameters_of, render
from tasks.runtime.configuration import load_yaml
from tasks.training.stages import load_training

BY_FOLDER = {page.folder: page for page in PAGES}
EXAMPLES = sorted((CHECKOUT / "configs").glob("*/*.yaml"))
MODELS = [*(parameters_of(flow) for flow in all_flows()), *(m for page in PAGES for m in page.models.values())]
ALL = sorted({nested for model in MODELS for nested in (model, *_nested(model))}, key=lambda model: model.__name__)
VALIDATED_LATER = {  # by the model that another key chooses; each has a table of its own
    "TrainingConfig.model",
    "BaselineTrainingConfig.settings",
    "DenoiserConfig.settings",
    "AblationBudget.variants",
    "ClusterConfig.options",  # arguments of classes of other packages
}


class Inner(BaseModel):
    """An inner model.

    Second paragraph.
    """

    side: float = Field(1.0, gt=0, le=10, description="Side.")


class Outer(BaseModel):
    """An outer model."""

    count: int = Field(ge=1, multiple_of=8, description="A count.")
    share: float | None = Field(None, ge=0, le=1, description="A share | of <all>.")
    mode: Literal["fast", "slow"] = Field("fast", description="A mode.")
    pair: tuple[float, float] = Field((0.5, 1), description="A pair.")
    names: list[str] = Field(min_length=1, description="Names.")
    sizes: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict, description="Sizes.")
    inner: Inner = Field(default=Inner(side=2), description="A model.")
    inners: list[Inner] = Field(default_factory=list, description="Models.")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return render()


def test_the_committed_pages_are_current(made: dict[str, str]) -> None:
    committed = {file.name: file.read_text() for file in FOLDER.glob("*.md") if file.name != "environment.md"}
    assert committed == made, "run `make reference`"


def test_rows_have_type_limits_default_and_description() -> None:
    outer, inner = _sections({"Outer": Outer}, {})
    rows = [(row["key"], row["type"], row["default"]) for row in outer["rows"]]
    assert rows == [
        ("count", "int >= 1, multiple of 8", "required"),
        ("share", "float >= 0, <= 1 or null", "`null`"),
        ("mode", "`fast` or `slow`", '`"fast"`'),
        ("pair", "tuple[float, float]", "`[0.5, 1]`"),
        ("names", "list[str] of at least 1", "required"),
        ("sizes", "dict[str, int > 0]", "`{}`"),
        ("inner", "[Inner](#inner)", '`{"side": 2.0}`'),
        ("inners", "list[[Inner](#inner)]", "`[]`"),
    ]
    assert (inner["title"], inner["intro"]) == ("Inner", "An inner model.")
    assert [row["description"] for row in inner["rows"]] == ["Side."]


def test_every_flow_and_deployment_is_on_the_page(made: dict[str, str]) -> None:
    names = {flow.name for flow in all_flows()}
    deployed = set(re.findall(r"entrypoint: flows/\w+\.py:(\w+)", (CHECKOUT / "infra" / "prefect.yaml").read_text()))
    assert deployed <= names
    for flow in all_flows():
        section = made["flows.md"].partition(f"## {flow.name}\n")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == parameters_of(flow).model_fields.keys()


def test_every_folder_of_configurations_has_a_page_with_its_examples(made: dict[str, str]) -> None:
    assert {location.name for location in (CHECKOUT / "configs").iterdir() if location.is_dir()} == set(BY_FOLDER)
    for example in EXAMPLES:
        name = f"{example.parent.name}/{example.name}"
        assert f"[{example.name}](../../configs/{name})" in made[f"{example.parent.name}.md"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_are_what_their_page_describes(example: Path) -> None:
    models = list(BY_FOLDER[example.parent.name].models.values())
    if example.parent.name == "models":
        assert type(load_training(str(example))) in models
    else:
        load_yaml(example, models[0])


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_every_key_has_a_description_and_a_type(model: type[BaseModel]) -> None:
    def parts(annotation: Any) -> list[Any]:
        return [annotation] + [leaf for part in get_args(annotation) for leaf in parts(part)]

    for name, about in model.model_fields.items():
        assert re.match(r"[A-Za-z0-9`'(].*\.$", about.description or "", re.DOTALL), f"{name}: {about.description}"
        assert Any not in parts(about.annotation) or f"{model.__name__}.{name}" in VALIDATED_LATER


def test_links_lead_somewhere(made: dict[str, str]) -> None:
    for name, text in made.items():
        anchors = {
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line[:1] == "#"
        }
        for file, location in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
            assert not file or (FOLDER / file).exists(), (name, file)
            assert not location or location in anchors, (name, location)


def test_environment_variables_that_are_read_are_on_their_page() -> None:
    page = (FOLDER / "environment.md").read_text()
    read = set()
    for layer in ("flows", "tasks", "pngmodel"):
        for path in (CHECKOUT / layer).rglob("*.py"):
            read |= set(re.findall(r'environ(?:\.get\(|\.setdefault\(|\[)\s*"(\w+)"', path.read_text()))
    assert {"PREFECT_API_URL", "RANK", "AWS_ENDPOINT_URL"} <= read
    missing = {name for name in read if f"`{name}`" not in page}
    assert not missing, f"describe these in docs/reference/environment.md: {', '.join(sorted(missing))}"
