"""Links and pictures of the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), Path("infra/README.md"), *Path("docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


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
