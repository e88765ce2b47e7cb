"""Tables of keys: types in plain words, ranges, defaults, models below keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from flows.docs.tables import Reference, Root
from flows.docs.words import code, default_words, prose, summary, type_words


class Square(BaseModel):
    """A square."""

    kind: Literal["square"] = Field("square", description="what it is")
    side: float = Field(gt=0, description="its side")


class Disc(BaseModel):
    """A disc.

    No word of this paragraph is shown.
    """

    kind: Literal["disc"] = Field("disc", description="what it is")
    radius: float = Field(1.0, gt=0, le=10, description="its radius")


class Base(BaseModel):
    """What all have."""

    steps: int = Field(10, ge=1, description="how many")
    name: str = Field("", description="what it is called")


class Derived(Base):
    """What some have besides."""

    name: str = Field("derived", description="what it is called")
    weight: float = Field(0.5, ge=0, lt=1, description="how much")


class Everything(BaseModel):
    """All that the generator knows."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, multiple_of=8, description="a count")
    share: float | None = Field(None, ge=0, le=1, description="a share")
    mode: Literal["fast", "slow", 3] | None = Field("fast", description="a mode")
    pair: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = Field(
        (0.5, 2 / 3), description="a pair"
    )
    mixed: tuple[int, str] = Field((1, "a"), description="unlike things")
    names: list[str] = Field(min_length=1, description="names | of things")
    sizes: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict, description="sizes")
    pattern: str = Field("a", pattern=r"^[a|b]+$", description="(?P<pair>...) times * or `<code>`")
    flag: bool = Field(True, description="a flag")
    seed: int = Field(0, ge=0, lt=2**63, description="a seed")
    shape: Annotated[Square | Disc, Field(discriminator="kind")] = Field(Disc(), description="a shape")
    either: Square | int = Field(1, description="either")
    shapes: list[Disc] = Field(default_factory=list, description="many")
    by_name: dict[str, Disc] = Field(default_factory=dict, description="by name")
    base: Base = Field(default_factory=Base, description="a base")
    derived: Derived = Field(default=Derived(weight=0.25), description="more than a base")
    free: dict[str, Any] = Field(default_factory=dict, description="checked later")
    untold: int = 0


@pytest.fixture
def made() -> Reference:
    root = Root("All of it", {"": Everything}, "An introduction.")
    chosen = {(Everything, "free"): {"`mode: fast`": Square, "`mode: slow`": Base}}
    return Reference({"a.md": [root]}, free=chosen, notes={Base: "A note."})


def line(page: str, key: str) -> list[str]:
    """The cells of a key's row."""
    rows = [text for text in page.splitlines() if text.startswith(f"| `{key}` |")]
    assert len(rows) == 1, (key, rows)
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", rows[0])[1:-1]]


@pytest.mark.parametrize(
    ("key", "words", "default"),
    [
        ("count", "whole number, at least 1, a multiple of 8", "required"),
        ("share", "number, 0 to 1; or `null`", "`null`"),
        ("mode", "`fast`, `slow` or `3`; or `null`", "`fast`"),
        ("pair", "2 numbers, each at least 0", "`[0.5, 0.666667]`"),
        ("mixed", "list of 2: whole number; text", "`[1, a]`"),
        ("names", "list of 1 or more texts", "required"),
        ("sizes", "names with whole numbers, each more than 0", "`{}`"),
        ("flag", "`true` or `false`", "`true`"),
        ("seed", "whole number, at least 0, less than 2^63", "`0`"),
        (
            "shape",
            "keys of [Square](#square) with `kind: square` or keys of [Disc](#disc) with `kind: disc`",
            "its own defaults",
        ),
        ("either", "keys of [Square](#square) or whole number", "`1`"),
        ("shapes", "list of keys of [Disc](#disc)", "`[]`"),
        ("by_name", "names with keys of [Disc](#disc)", "`{}`"),
        ("base", "keys of [Base](#base)", "its own defaults"),
        ("derived", "keys of [Derived](#derived)", "`{weight: 0.25}`"),
        (
            "free",
            "keys of [Square](#square) with `mode: fast` or keys of [Base](#base) with `mode: slow`",
            "`{}`",
        ),
    ],
)
def test_a_row_says_what_may_stand_there_and_the_default(made: Reference, key: str, words: str, default: str) -> None:
    assert line(made.page("a.md"), key)[1:3] == [words, default]


def test_bars_and_html_of_words_do_not_break_the_table(made: Reference) -> None:
    page = made.page("a.md")
    assert line(page, "names")[3] == "names | of things"
    assert line(page, "pattern")[1:] == ["text, as `^[a|b]+$`", "`a`", r"(?P\<pair>...) times \* or `<code>`"]
    assert all(text.replace("\\|", "").count("|") == 5 for text in page.splitlines() if text.startswith("|"))


def test_models_below_keys_have_a_table_each_once_with_all_places(made: Reference) -> None:
    page = made.page("a.md")
    for name in ("Square", "Disc", "Base", "Derived"):
        assert page.count(f"## {name}\n") == 1
    assert "A square. Keys below `shape`, `either` or `free` with `mode: fast`." in page
    assert "A disc. Keys below `shape`, `shapes[]` or `by_name.*`." in page
    assert "No word of this paragraph" not in page
    assert line(page, "radius")[1] == "number, more than 0, at most 10"


def test_keys_of_a_table_with_one_place_are_written_in_full(made: Reference) -> None:
    assert line(made.page("a.md"), "derived.weight")[1:3] == ["number, at least 0, less than 1", "`0.5`"]


def test_a_model_names_what_it_inherits_and_shows_what_it_changes(made: Reference) -> None:
    page = made.page("a.md")
    assert "Keys below `derived`. All keys of [Base](#base) and these:" in page
    assert line(page, "derived.name")[2] == "`derived`"
    assert "`derived.steps`" not in page
    assert line(page, "steps")[2] == "`10`"


def test_inherited_keys_stand_in_full_where_the_base_has_no_table() -> None:
    page = Reference({"a.md": [Root("Only", {"": Derived}, "")]}).page("a.md")
    assert line(page, "steps")[2] == "`10`"


def test_notes_stand_between_heading_and_table(made: Reference) -> None:
    page = made.page("a.md")
    assert page.index("## Base") < page.index("A note.") < page.index("| `steps` |")


def test_a_model_of_another_page_is_a_link_to_it() -> None:
    pages = {"a.md": [Root("Shape", {"": Disc}, "")], "b.md": [Root("flow", {"parameters": Everything, "x": Disc}, "")]}
    made = Reference(pages)
    page = made.page("b.md")
    assert line(page, "shapes")[1] == "list of keys of [Shape](a.md#shape)"
    assert "`x` has the keys of [Shape](a.md#shape)." in page
    assert "## Disc" not in page
    assert "Keys below" not in made.page("a.md")  # what other pages make of it is theirs


def test_what_a_model_leaves_unsaid_is_known(made: Reference) -> None:
    assert made.undescribed() == ["Everything.untold"]
    assert made.open_keys() == []
    alone = Reference({"a.md": [Root("All", {"": Everything}, "")]}, said={"Everything.untold": "said elsewhere"})
    assert alone.open_keys() == ["Everything.free"]
    assert line(alone.page("a.md"), "untold")[3] == "said elsewhere"
    assert line(alone.page("a.md"), "free")[1] == "names with anything"


def test_the_same_models_give_the_same_bytes(made: Reference) -> None:
    assert made.page("a.md") == made.page("a.md")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}, "list of 2 to 4 whole numbers"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of whole numbers, each at least 1"),
        ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, "set of texts"),
        ({"type": "string", "minLength": 1}, "text, not empty"),
        ({"type": "string", "minLength": 3, "maxLength": 9}, "text, at least 3 characters, at most 9 characters"),
        ({"type": "string", "format": "path"}, "path"),
        ({"const": "a"}, "`a`"),
        ({"type": "number", "exclusiveMinimum": 0.00390625}, "number, more than 0.00390625"),
        ({}, "anything"),
    ],
)
def test_schemas_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_words(schema, str) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "`null`"),
        ("", "`''`"),
        (1e-7, "`1.0e-07`"),
        (tuple(range(12)), "12 values, `0` to `11`"),
        ({"b": 1, "a": [0.1, "x"]}, "`{b: 1, a: [0.1, x]}`"),
    ],
)
def test_defaults_as_yaml(value: Any, words: str) -> None:
    assert default_words(value) == words


def test_words_of_docstrings_become_markdown() -> None:
    assert prose("See :func:`~a.b.run` for\n    ``x``.") == "See `a.b.run` for `x`."
    assert summary("First\nline.\n\nSecond.") == "First line."
    assert summary(None) == ""
    assert code(True) == "`true`"
