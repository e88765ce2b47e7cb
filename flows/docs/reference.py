"""The pages of docs/reference/, except environment.md. `make reference` writes them."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jinja2
from prefect import Flow
from pydantic import BaseModel

import flows
from flows.paper.budget import Budget
from pngmodel.baselines.trained import TRAINED
from pngmodel.denoisers import DENOISERS
from pngmodel.network.presets import ModelConfig
from tasks.corpus.gate import GateRules
from tasks.datasets.adapters.folders import FolderRules
from tasks.denoising.training import DenoiserTrainingConfig
from tasks.models.promotion import PromotionRules
from tasks.runtime.parameters import ClusterConfig
from tasks.training.baseline import BaselineTrainingConfig
from tasks.training.noise_model import TrainingConfig

Model = type[BaseModel]
CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "docs" / "reference"
_TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "null", "object": "dict"}
_LONGEST = 100  # characters of a default
_LIMITS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minItems": "of at least {}",
    "minLength": "of at least {} characters",
    "pattern": "matches `{}`",
}


@dataclass(frozen=True)
class Page:
    """The files of a folder of configs/: what reads them, and the models of their keys by title."""

    folder: str
    intro: str
    models: Mapping[str, Model]


PAGES = (
    Page(
        "clusters",
        "Where tasks run: `--cluster FILE`, or the parameter `cluster` of a flow. `inline` and `local` need no file.",
        {"Cluster": ClusterConfig},
    ),
    Page(
        "datasets",
        "Rules to read paired folders: `pngnoise ingest FOLDER --adapter FILE`.",
        {"Rules of paired folders": FolderRules},
    ),
    Page(
        "models",
        "Training configurations: `pngnoise train FILE`. With the key `baseline` a file trains a baseline, otherwise\n"
        "the noise model. The `preset` of a noise model replaces defaults of its `model`;\n"
        "`pngnoise train FILE --dry-run` prints the resolved configuration.",
        {
            "Training of the noise model": TrainingConfig,
            "Training of a baseline": BaselineTrainingConfig,
            "model of the noise model": ModelConfig,
            **{f"settings of baseline {name}": TRAINED[name].settings for name in sorted(TRAINED)},
        },
    ),
    Page(
        "quality_gates",
        "Thresholds that a corpus must pass before it is published: `pngnoise generate --gate FILE`.",
        {"Quality gate": GateRules},
    ),
    Page(
        "denoisers",
        "Training configurations of denoisers: `pngnoise train-denoiser FILE`.",
        {
            "Training of a denoiser": DenoiserTrainingConfig,
            **{f"settings of denoiser {name}": DENOISERS[name][0] for name in sorted(DENOISERS)},
        },
    ),
    Page(
        "promotion",
        "Thresholds that an evaluation must pass before a version becomes champion:\n"
        "`pngnoise registry promote --rules FILE`.",
        {"Promotion rules": PromotionRules},
    ),
    Page(
        "paper",
        "Budgets of `pngnoise reproduce-paper --budget FILE`. `smoke`, `small` and `full` need no path.",
        {"Budget": Budget},
    ),
)


def all_flows() -> list[Flow[..., Any]]:
    """The flows of this package; subflows, which only other flows run, are below flows/paper."""
    modules = [importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flows.__path__)]
    made = (value for module in modules for value in vars(module).values() if isinstance(value, Flow))
    return sorted({flow for flow in made if flow.fn.__module__.count(".") == 1}, key=lambda flow: flow.name)


def parameters_of(flow: Flow[..., Any]) -> Model:
    """The parameter model of a flow."""
    model: Model = inspect.signature(flow.fn, eval_str=True).parameters["parameters"].annotation
    return model


def render() -> dict[str, str]:
    """Content of each page by file name."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True)
    environment.filters["cell"] = lambda text: re.sub(r"(\||<(?=[a-z/]))", r"\\\1", " ".join(text.split()))
    template, by_name = environment.get_template("page.md.j2"), {flow.name: flow for flow in all_flows()}
    intros = {name: f"{_plain(flow.description)}\n\nSource: `{flow.fn.__module__}`." for name, flow in by_name.items()}
    sections = _sections({name: parameters_of(flow) for name, flow in by_name.items()}, intros)
    content = {"flows.md": template.render(title="Parameters of the flows", intro=_FLOWS, sections=sections)}
    for page in PAGES:
        examples = {file: _comment(file) for file in sorted((CHECKOUT / "configs" / page.folder).glob("*.yaml"))}
        content[f"{page.folder}.md"] = template.render(
            title=f"Files of configs/{page.folder}",
            intro=page.intro,
            examples=examples,
            sections=_sections(page.models, {}),
        )
    links = [f"- [Files of configs/{page.folder}]({page.folder}.md): {' '.join(page.intro.split())}" for page in PAGES]
    return content | {"README.md": "\n".join([_INDEX, *links, ""])}


def _sections(models: Mapping[str, Model], intros: Mapping[str, str]) -> list[dict[str, Any]]:
    """The models, then the models of their fields, each with a row per field."""
    titles = {model: title for title, model in models.items()}
    for model in (nested for root in models.values() for nested in _nested(root)):
        titles.setdefault(model, model.__name__)
    return [
        {
            "title": title,
            "intro": intros.get(title, _plain(model.__doc__).partition("\n\n")[0]),
            "rows": list(_rows(model, titles)),
        }
        for model, title in titles.items()
    ]


def _nested(model: Model) -> Iterator[Model]:
    """The models of the fields of ``model``, and theirs."""
    for about in model.model_fields.values():
        for found in _models(about.annotation):
            yield found
            yield from _nested(found)


def _models(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _rows(model: Model, titles: Mapping[Model, str]) -> Iterator[dict[str, str]]:
    schema = model.model_json_schema(by_alias=False)
    links = {nested.__name__: f"[{title}](#{_anchor(title)})" for nested, title in titles.items()}
    for name, about in model.model_fields.items():
        default = "required" if about.is_required() else _default(about.get_default(call_default_factory=True))
        yield {
            "key": name,
            "type": _type(schema["properties"][name], links),
            "default": default,
            "description": about.description or "",
        }


def _type(schema: Mapping[str, Any], links: Mapping[str, str]) -> str:
    """The type of a JSON schema with its limits, e.g. ``list[int], at least 1 items``."""
    if "$ref" in schema:
        return links[schema["$ref"].rpartition("/")[2]]
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{choice}`" for choice in choices)
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(branch, links) for branch in branches)
    name = _TYPES.get(schema.get("type", ""), "any")
    if schema.get("type") == "array":
        name = f"list[{_type(schema.get('items', {}), links)}]"
        if items := schema.get("prefixItems"):
            return f"tuple[{', '.join(_type(item, links) for item in items)}]"
    if isinstance(values := schema.get("additionalProperties"), dict):
        name = f"dict[str, {_type(values, links)}]"
    return f"{name} {', '.join(text.format(schema[key]) for key, text in _LIMITS.items() if key in schema)}".strip()


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    text = json.dumps(value, default=str)
    return f"`{text}`" if len(text) < _LONGEST else "see the source"


def _plain(docstring: str | None) -> str:
    """A docstring as Markdown: without roles and double backticks."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(docstring or "")).replace("``", "`")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _comment(file: Path) -> str:
    lines = [line.removeprefix("#").strip() for line in file.read_text().splitlines() if line.startswith("#")]
    return " ".join(lines).partition(". ")[0].rstrip(".:")


_FLOWS = """\
Prefect's form asks for these, and a deployment takes them as one mapping, `parameters`:

    prefect deployment run train_noise_model/train --watch \\
        --params '{"parameters": {"config": "configs/models/small.yaml", "output": "runs/small"}}'

Each command of `pngnoise` has an option of the same name for each key: `max_minutes` is `--max-minutes`.
Unknown keys are rejected."""

_INDEX = """\
<!-- Generated by `make reference` from the models; edit their Field descriptions, not this page. -->

# Reference of the configuration

Keys, types, defaults and descriptions, from the models that validate them. Unknown keys are rejected; errors name the
file, the key, the value and what is allowed. A type that is a link is a mapping with the keys of that table.

- [Parameters of the flows](flows.md): the form in Prefect's UI, and the options of the commands.
- [Environment variables](environment.md)"""


def main() -> None:
    """Write the pages and remove those that are not generated any more."""
    content = render()
    for file in FOLDER.glob("*.md"):
        if file.name not in {*content, "environment.md"}:
            file.unlink()
    for name, text in content.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
