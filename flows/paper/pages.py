"""Pages of results: our values, the paper's values, and differences in data and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.reports.markdown import code, plain, table
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import join, write_bytes

NONE = "–"


@dataclass(frozen=True)
class Page:
    """A page with one table."""

    name: str
    """File name without extension."""
    title: str
    intro: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    differs: Sequence[str]
    """Differences from the paper in data, protocol and budget."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Digests, device, commit."""

    def markdown(self) -> str:
        """Return the page as Markdown."""
        lines = [f"# {self.title}", "", self.intro, "", table(self.head, self.rows)]
        lines += ["Differences from the paper:", "", *(f"- {text}" for text in self.differs)]
        lines += ["", *(f"- {plain(name)}: {code(value)}" for name, value in self.facts.items())]
        return "\n".join(lines) + "\n"


def write_page(output: str, page: Page) -> str:
    """Write a page; returns its location."""
    location = join(output, f"{page.name}.md")
    write_bytes(location, page.markdown().encode())
    return location


def write_index(output: str, pages: Sequence[Page], budget: str) -> str:
    """Write README.md with links to all pages; returns its location."""
    lines = [
        "# The paper's tables",
        "",
        f"Budget `{budget}`. Each page lists our values, the paper's values, and the differences from the paper.",
        "",
    ]
    lines += [f"- [{page.title}]({page.name}.md)" for page in pages]
    location = join(output, "README.md")
    write_bytes(location, ("\n".join(lines) + "\n").encode())
    return location


def number(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """Format a number; None is a dash."""
    if value is None:
        return NONE
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


task_write_page = step("write_page")(write_page)
task_write_index = step("write_index")(write_index)
