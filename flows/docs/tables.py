"""Tables of keys: a model, then the models below its keys, each once in the whole reference."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from flows.docs.words import FREE, alternatives, default_words, prose, row, summary, type_words

Model = type[BaseModel]
FreeKeys = Mapping[tuple[Model, str], Mapping[str, Model]]
"""Keys whose values are validated later, by (model, key): the models of their keys, by what chooses one."""

_HEAD = (row("key", "what may stand there", "default", "meaning"), row(*["---"] * 4))


@dataclass(frozen=True)
class Root:
    """A model whose keys stand at the top of a file, or of a flow's parameters."""

    title: str
    models: Mapping[str, Model]
    """By the name of the parameter; a file has none."""
    intro: str
    """Stands above the table, as Markdown."""


@dataclass
class _Shown:
    """Where a model's table is, and the keys it belongs to."""

    page: str
    anchor: str
    locations: list[tuple[str, str, str]] = field(default_factory=list)
    """Title of the root, path of the key, condition; empty for a root itself."""


class Reference:
    """All pages: a name, and the roots on it, in order."""

    def __init__(
        self,
        pages: Mapping[str, Sequence[Root]],
        *,
        free: FreeKeys | None = None,
        said: Mapping[str, str] | None = None,
        notes: Mapping[Model, str] | None = None,
    ) -> None:
        """``said``: meanings of keys whose models cannot say them, by ``Model.key``; ``notes``: above tables."""
        self._pages, self._free, self._said, self._notes = pages, free or {}, said or {}, notes or {}
        self._shown: dict[Model, _Shown] = {}
        for page, roots in pages.items():
            for root in roots:
                for model in root.models.values():
                    self._shown.setdefault(model, _Shown(page, anchor(root.title)))
        for page, roots in pages.items():
            for root in roots:
                for model in root.models.values():
                    if self._home(model, page, root):
                        self._find(model, page, root.title, "")

    @property
    def models(self) -> list[Model]:
        """Every model that is shown."""
        return list(self._shown)

    def page(self, name: str) -> str:
        """The tables of one page."""
        told: list[str] = []
        for root in self._pages[name]:
            told += [f"## {root.title}", "", filled(root.intro), ""]
            for parameter, model in root.models.items():
                if self._home(model, name, root):
                    told += [*self._rows(model, name), ""]
                else:
                    told += [f"`{parameter}` has the keys of {self._link(model, name)}.", ""]
        # Below the roots: a table may belong to several of them.
        for model, shown in self._shown.items():
            if shown.page == name and shown.locations:
                told += [
                    f"## {model.__name__}",
                    "",
                    filled(f"{summary(model.__doc__)} {self._belongs(model, name)}"),
                    "",
                ]
                told += [*([self._notes[model], ""] if model in self._notes else []), *self._rows(model, name), ""]
        return "\n".join(told)

    def _home(self, model: Model, page: str, root: Root) -> bool:
        """Whether the keys of a model stand below this heading."""
        return (self._shown[model].page, self._shown[model].anchor) == (page, anchor(root.title))

    def _find(self, model: Model, page: str, title: str, path: str) -> None:
        for name in model.model_fields:
            for below, suffix, condition in self._below(model, name):
                location = f"{path}{name}{suffix}"
                if below not in self._shown:
                    self._shown[below] = _Shown(page, anchor(below.__name__))
                    self._find(below, page, title, f"{location}.")
                shown = self._shown[below]
                if shown.page == page and shown.anchor == anchor(below.__name__):
                    shown.locations.append((title, location, condition))

    def _below(self, model: Model, name: str) -> Iterator[tuple[Model, str, str]]:
        """Models whose keys stand below a key, how they hang on it, and what chooses them."""
        annotation, depth = model.model_fields[name].annotation, 0
        yield from ((below, suffix, "") for below, suffix in nested(annotation))
        while get_origin(annotation) is dict:
            annotation, depth = get_args(annotation)[1], depth + 1
        for condition, chosen in self._free.get((model, name), {}).items():
            yield chosen, ".*" * (depth - 1), condition

    def _link(self, model: Model, page: str) -> str:
        shown = self._shown[model]
        titles = [root.title for root in self._pages[shown.page] if anchor(root.title) == shown.anchor]
        return f"[{[*titles, model.__name__][0]}]({'' if shown.page == page else shown.page}#{shown.anchor})"

    def _belongs(self, model: Model, page: str) -> str:
        locations = self._shown[model].locations
        one = len({title for title, _, _ in locations}) == 1
        told = [
            f"`{path}`"
            + (f" with {condition}" if condition else "")
            + ("" if one else f" of [{title}](#{anchor(title)})")
            for title, path, condition in locations
        ]
        where = alternatives(list(dict.fromkeys(told)))
        inherited = self._inherited(model, page)
        more = f" All keys of {self._link(inherited, page)} and these:" if inherited else ""
        return f"Keys below {where}.{more}"

    def _inherited(self, model: Model, page: str) -> Model | None:
        bases = [base for base in model.__mro__[1:] if base in self._shown and self._shown[base].page == page]
        return bases[0] if bases else None

    def _rows(self, model: Model, page: str) -> list[str]:
        paths = {path for _, path, _ in self._shown[model].locations}
        prefix = f"{paths.pop()}." if len(paths) == 1 else ""
        inherited = self._inherited(model, page)
        known = set(self._cells(inherited, page)) if inherited else set()
        rows = [cells for cells in self._cells(model, page) if cells not in known]
        return [*_HEAD, *(row(f"`{prefix}{cells[0]}`", *cells[1:]) for cells in rows)]

    def _cells(self, model: Model, page: str) -> Iterator[tuple[str, str, str, str]]:
        """Key, type, default and meaning of each key."""
        names = {below.__name__: below for name in model.model_fields for below, *_ in self._below(model, name)}
        properties = model.model_json_schema(by_alias=False)["properties"]

        def link(name: str) -> str:
            return f"keys of {self._link(names[name], page)}"

        for name, about in model.model_fields.items():
            words = type_words(properties[name], link)
            if chosen := self._free.get((model, name)):
                told = [
                    link(m.__name__) + (f" with {condition}" if condition else "") for condition, m in chosen.items()
                ]
                words = words.replace(FREE, alternatives(told))
            default = "required" if about.is_required() else default_words(about.get_default(call_default_factory=True))
            yield name, words, default, prose(about.description or self._said.get(f"{model.__name__}.{name}", ""))

    def undescribed(self) -> list[str]:
        """``Model.key`` of every key whose model does not say what it means."""
        return [
            f"{model.__name__}.{name}"
            for model in self._shown
            for name, about in model.model_fields.items()
            if not about.description
        ]

    def open_keys(self) -> list[str]:
        """``Model.key`` of every key that takes anything, with no model that says what."""
        return [
            f"{model.__name__}.{name}"
            for model in self._shown
            for name, about in model.model_fields.items()
            if Any in _leaves(about.annotation) and (model, name) not in self._free
        ]


def nested(annotation: Any) -> Iterator[tuple[Model, str]]:
    """Models inside a type, with how their keys hang on the key: ``[]`` in a list, ``.*`` under any name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
        return
    suffix = {dict: ".*", list: "[]", tuple: "[]", set: "[]"}.get(get_origin(annotation), "")
    for part in get_args(annotation):
        for model, below in nested(part):
            yield model, suffix + below


def _leaves(annotation: Any) -> Iterator[Any]:
    if not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _leaves(part)


def filled(text: str) -> str:
    """A paragraph in lines of the house."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def anchor(title: str) -> str:
    """The anchor that Markdown readers give a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
