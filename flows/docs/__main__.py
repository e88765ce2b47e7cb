"""The pages of docs/reference/: every kind of YAML file and every flow's parameters. `make reference` writes them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

from prefect import Flow
from pydantic import BaseModel

import flows
from flows.docs.kinds import FREE_KEYS, KINDS, NOTES, SAID, Kind, first_sentence
from flows.docs.tables import Reference, Root, filled
from flows.docs.words import prose, row, summary

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "docs" / "reference"
FLOWS = "flows.md"
INDEX = "README.md"
_MADE = "<!-- Made by `make reference` from the models' own words. Change those, not this page. -->"


def all_flows() -> list[Flow[..., Any]]:
    """Every flow of this package; those that are run by another one, from a folder, last."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(flows.__path__, "flows.")]
    found = {
        (module.__name__.count("."), module.__name__, value.name): value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Flow) and value.fn.__module__ == module.__name__
    }
    return [found[location] for location in sorted(found)]


def reference() -> Reference:
    """All pages and what is on them."""
    pages: dict[str, list[Root]] = {kind.page: kind.roots for kind in KINDS}
    pages[FLOWS] = [_root(flow) for flow in all_flows()]
    return Reference(pages, free=FREE_KEYS, said=SAID, notes=NOTES)


def _root(flow: Flow[..., Any]) -> Root:
    models = {
        name: parameter.annotation
        for name, parameter in inspect.signature(flow.fn, eval_str=True).parameters.items()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, BaseModel)
    }
    file = f"{flow.fn.__module__.replace('.', '/')}.py"
    return Root(flow.name, models, f"{summary(flow.description)} In [{file}](../../{file}).")


def pages() -> dict[str, str]:
    """Content by name of the page."""
    made = reference()
    content = {kind.page: f"{_kind(kind)}\n{made.page(kind.page)}" for kind in KINDS}
    content[FLOWS] = f"{_FLOWS}\n{made.page(FLOWS)}"
    content[INDEX] = _INDEX + "\n".join(
        [
            row("page", "what it is about"),
            row("---", "---"),
            *(row(f"[{k.page}]({k.page})", k.intro) for k in KINDS),
            "",
        ]
    )
    return {name: f"{_MADE}\n\n{_linked(name, text).rstrip()}\n" for name, text in content.items()}


def _kind(kind: Kind) -> str:
    files = sorted((CHECKOUT / "configs" / kind.folder).glob("*.yaml"))
    rows = [row(f"[{f.name}](../../configs/{kind.folder}/{f.name})", prose(first_sentence(f))) for f in files]
    return "\n".join(
        [
            f"# Files of configs/{kind.folder}",
            "",
            filled(kind.intro),
            "",
            row("example", ""),
            row("---", "---"),
            *rows,
            "",
        ]
    )


def _linked(page: str, text: str) -> str:
    """Text in which folders of configs/ are links to their pages."""
    names = "|".join(kind.folder for kind in KINDS if kind.page != page)
    return re.sub(rf"(?<![\w/])configs/({names})/(?![\w`])", r"[configs/\1/](\1.md)", text)


def write(folder: Path = FOLDER) -> list[str]:
    """Write the pages and remove those of kinds that are gone; returns what was changed."""
    folder.mkdir(parents=True, exist_ok=True)
    made, changed = pages(), []
    for name, text in made.items():
        location = folder / name
        if not location.exists() or location.read_text() != text:
            location.write_text(text)
            changed.append(name)
    for location in stale(folder, made):
        location.unlink()
        changed.append(location.name)
    return changed


def stale(folder: Path, made: dict[str, str]) -> list[Path]:
    """Pages that were made once, and are no more."""
    return [p for p in sorted(folder.glob("*.md")) if p.name not in made and p.read_text().startswith(_MADE)]


_FLOWS = """\
# Parameters of the flows

What Prefect's UI asks for in its form, and what a deployment is given. A flow takes one mapping, `parameters`:

    prefect deployment run train_noise_model/train --watch \\
        --params '{"parameters": {"config": "configs/models/small.yaml", "output": "runs/small"}}'

The commands of `pngnoise` have options of the same meanings. Unknown keys are refused.
"""

_INDEX = """\
# Reference of the configuration

Keys, what may stand there, defaults and meanings, as the models that validate them say it. A key that a file does not
know is refused, and an error names file, key, value and what is allowed. Rules between several keys are told by the
error that breaking them gives. `a.b` is key `b` below key `a`, `a[].b` below every item of a list, `a.*.b` below every
name that you choose. `null` is nothing given.

[Parameters of the flows](flows.md), [environment variables](environment.md), and the kinds of YAML files:

"""

if __name__ == "__main__":
    print("\n".join(write()) or "nothing changed")
