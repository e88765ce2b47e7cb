"""Links, pictures and commands of the documents exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from cyclopts import App
from PIL import Image

from flows.cli.app import app

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *Path("infra").rglob("*.md"), *Path("docs").rglob("*.md")]
COMMAND = re.compile(r"^ {4,}(?:\S+=\S+ )*(?:\.venv/bin/)?pngnoise +([a-z].*)|`pngnoise ([a-z][^`]*)`", re.M)
CURRENT = [page for page in PAGES if page.parent != Path("docs/results")]  # results keep the commands of their day


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for line in COMMAND.findall(text):
        words = "".join(line).split("#")[0].split("&&")[0].split()
        command: App = app
        while words and not words[0].startswith("-") and words[0] in command:
            command = command[words.pop(0)]
        assert command is not app, f"{page}: no command {words[0]!r}"
        arguments = command.assemble_argument_collection() if command.default_command else ()
        options = {name for argument in arguments for name in argument.names}
        unknown = [word for word in words if word.startswith("--") and word not in options | {"--help"}]
        assert unknown == [], f"{page}: pngnoise {' '.join(line)}"


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_names_of_code_exist(page: Path) -> None:
    for name in set(re.findall(r"`((?:tasks|flows|pngmodel|infra)(?:\.\w+)+)`", page.read_text())):
        parts = name.split(".")
        known = max((k for k in range(1, len(parts) + 1) if is_module(parts[:k])), default=0)
        found = import_module(".".join(parts[:known]))
        for part in parts[known:]:
            assert hasattr(found, part), f"{page}: {name} does not exist"
            found = getattr(found, part)


def is_module(parts: list[str]) -> bool:
    path = Path(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("page", ["docs/reliability.md", "docs/security.md"])
def test_what_is_promised_names_tests_that_exist(page: str) -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", Path(page).read_text())
    assert len(named) > 10
    for file, test in named:
        found = [Path("tests", file)] if "/" in file else list(Path("tests").rglob(file))
        assert found, f"{page}: {file} is nowhere in tests/"
        assert found[0].exists(), f"{page}: {file} does not exist"
        assert not test or f"def {test}(" in found[0].read_text(), f"{page}: {file} has no {test}"


def test_pictures_are_shown_and_small() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for path in Path("docs/pictures").iterdir():
        assert f"pictures/{path.name})" in text, f"{path}: no page shows it"
        assert path.stat().st_size < 400_000, f"{path}: pictures are cloned by everybody"
        with Image.open(path) as picture:
            assert picture.width > 1000
