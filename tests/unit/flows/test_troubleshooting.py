"""docs/troubleshooting.md quotes errors that the sources still raise, and commands that still exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from cyclopts import App

from flows.cli.app import app

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
LAYERS = ("flows", "tasks", "pngmodel")
SHORTEST = 12  # characters of a fragment that is looked for
_QUOTE = re.compile(r"\*\*(`+)(.+?)\1\*\*")
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def quoted(page: str) -> list[str]:
    """The product's errors on a page: lines in bold. Other software's are in italics and not looked for."""
    lines = [line for line in page.splitlines() if line.startswith("**")]
    found = [_QUOTE.fullmatch(line) for line in lines]
    wrong = [line for line, match in zip(lines, found, strict=True) if match is None]
    assert not wrong, f"a line in bold is one error in code: {wrong}"
    return [match[2].strip() for match in found if match]


def fragments(text: str) -> list[str]:
    """What of an error is the same whenever it is raised."""
    return [part for part in text.split("…") if len(part) >= SHORTEST]


def texts(source: str) -> list[str]:
    """The strings of a source, those with values in them by their parts; docstrings tell nobody anything."""
    tree = ast.parse(source)
    documented = [node.body[0] for node in ast.walk(tree) if isinstance(node, _DOCUMENTED) and node.body]
    docstrings = {id(first.value) for first in documented if isinstance(first, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in strings if isinstance(node.value, str)]


def unknown(quotes: list[str], sources: Mapping[str, list[str]]) -> list[str]:
    """Errors that no one source raises: not all of their fragments are in its strings, or there is none to look for."""

    def raised(quote: str) -> bool:
        parts = fragments(quote)
        return bool(parts) and any(
            all(any(part in string for string in strings) for part in parts) for strings in sources.values()
        )

    return [quote for quote in quotes if not raised(quote)]


@pytest.fixture(scope="module")
def sources() -> dict[str, list[str]]:
    paths = [path for layer in LAYERS for path in (CHECKOUT / layer).rglob("*.py")]
    return {str(path): texts(path.read_text()) for path in paths}


def test_every_error_of_the_page_is_still_raised(sources: dict[str, list[str]]) -> None:
    quotes = quoted(PAGE.read_text())
    assert len(quotes) >= 40
    assert len(set(quotes)) == len(quotes)
    assert unknown(quotes, sources) == [], "say in docs/troubleshooting.md what the sources say now"


def test_an_error_that_is_raised_no_more_is_found_out() -> None:
    page = "\n".join(
        [
            "Text with **bold** words.",
            "**`…: holds … apples and …; choose another basket`**",
            "**``…: rotten; run `pngnoise eat` again``**",
            "**`…: holds … unripe pears and …; choose another basket`**",
            "**`…: was said in a docstring only`**",
            "**`…: a … b`**",
            "**`…: half of it; is in another file`**",
            "**`…: half of this is in one file, … half in another file`**",
            "*`says other software`*",
        ]
    )
    one = (
        'def f(n):\n    """It was said in a docstring only."""\n'
        '    raise E(f"{n}: holds {n} apples and {n}; "\n        "choose another basket")\n'
        'def g(n):\n    raise E(f"{n}: rotten; run `pngnoise eat` again")\n'
        'def h(n):\n    raise E(f"{n}: half of this is in one file, {n}")\n'
    )
    other = 'E(f"{n} half in another file, " + "; is in another file")'
    quotes = quoted(page)
    assert len(quotes) == 7
    found = unknown(quotes, {"one.py": texts(one), "other.py": texts(other)})
    assert found == [quotes[k] for k in (2, 3, 4, 5, 6)]


def test_a_line_in_bold_that_is_no_quote_is_found_out() -> None:
    with pytest.raises(AssertionError, match="one error in code"):
        quoted("**…: no code here**")


def test_every_command_of_the_page_exists() -> None:
    known: set[str] = set()

    def walk(command: App, path: str) -> None:
        known.update([path] if command.default_command else [])
        for name in command:
            if not name.startswith("-"):
                walk(command[name], f"{path} {name}".strip())

    walk(app, "")
    page = PAGE.read_text()
    given = re.findall(r"(?:^ {4}|`|&& )pngnoise ([a-z][a-z0-9-]*)(?: ([a-z][a-z0-9-]*))?", page, re.MULTILINE)
    assert len(given) > 10
    assert [words for words in given if words[0] not in known and " ".join(words) not in known] == []


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
