"""Flow: reproduce the tables of the PNG paper on the given data, with one subflow per table."""

from __future__ import annotations

from typing import Any

from flows.paper import TABLES, ReproduceParameters
from flows.paper.budget import load_budget
from flows.paper.pages import task_write_index, task_write_page
from flows.pipeline import pipeline, tail
from pngmodel.errors import UserError
from tasks.runtime.artifacts import publish_markdown


@pipeline("reproduce_paper", ReproduceParameters, lambda p: f"paper {tail(p.budget)}: {tail(p.real)}")
def reproduce_paper(parameters: ReproduceParameters) -> dict[str, Any]:
    """Write a page per table to ``pages/`` in the output, with measured and published values and their differences.

    Results of an earlier run with the same inputs are reused.

    Returns:
        Locations of the index, and of the pages by table.
    """
    budget = load_budget(parameters.budget)
    if unknown := sorted(set(parameters.tables) - set(TABLES)):
        raise UserError(f"tables: unknown names {', '.join(unknown)}; choose from {', '.join(TABLES)}")
    folder, pages, locations = parameters.location("pages"), [], {}
    for name in parameters.tables or TABLES:
        page = TABLES[name](parameters, budget)
        locations[name] = task_write_page(folder, page)
        pages.append(page)
        publish_markdown(f"paper-{name}", page.markdown())
    index = task_write_index(folder, pages, parameters.budget)
    return {"index": index, "pages": locations}
