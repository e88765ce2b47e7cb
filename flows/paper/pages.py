"""Pages of results: what was measured beside what the paper reports, and what differs in data or protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.reports.markdown import code, plain, table
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import join, write_bytes

NONE = "–"


@dataclass(frozen=True)
class Page:
    """One table."""

    name: str
    """Of its file."""
    title: str
    intro: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    differs: Sequence[str]
    """What is other than in the paper: data, protocol, budget."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Digests, device, commit."""

    def markdown(self) -> str:
        """The page."""
        lines = [f"# {self.title}", "", self.intro, "", table(self.head, self.rows)]
        lines += ["What differs from the paper:", "", *(f"- {text}" for text in self.differs)]
        lines += ["", *(f"- {plain(name)}: {code(value)}" for name, value in self.facts.items())]
        return "\n".join(lines) + "\n"


def write_page(output: str, page: Page) -> str:
    """Publish a page; returns its place."""
    location = join(output, f"{page.name}.md")
    write_bytes(location, page.markdown().encode())
    return location


def write_index(output: str, pages: Sequence[Page], budget: str) -> str:
    """README.md of a folder of pages."""
    lines = [
        "# The paper's tables",
        "",
        f"Budget `{budget}`. Each page has our figures, the paper's, and what differs.",
        "",
    ]
    lines += [f"- [{page.title}]({page.name}.md)" for page in pages]
    location = join(output, "README.md")
    write_bytes(location, ("\n".join(lines) + "\n").encode())
    return location


def number(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """A figure, or a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


task_write_page = step("write_page")(write_page)
task_write_index = step("write_index")(write_index)
