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


def test_pictures_are_shown_and_small() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for path in Path("docs/pictures").iterdir():
        assert f"pictures/{path.name})" in text, f"{path}: no page shows it"
        assert path.stat().st_size < 400_000, f"{path}: pictures are cloned by everybody"
        with Image.open(path) as picture:
            assert picture.width > 1000
