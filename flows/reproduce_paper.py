"""Flow: the tables of the PNG paper on your data, one subflow each."""

from __future__ import annotations

from typing import Any

from flows.paper.budget import load_budget
from flows.paper.denoisers import cross_domain, downstream, scaling, unpaired
from flows.paper.noise import ablation, noise_quality, two_sample_test
from flows.paper.others import classifier, speed
from flows.paper.pages import task_write_index, task_write_page
from flows.paper.parameters import ReproduceParameters
from flows.pipeline import pipeline, tail
from tasks.runtime.artifacts import publish_markdown

TABLES = {
    "noise-quality": noise_quality,
    "downstream": downstream,
    "cross-domain": cross_domain,
    "scaling": scaling,
    "unpaired": unpaired,
    "ablation": ablation,
    "c2st": two_sample_test,
    "classifier": classifier,
    "speed": speed,
}
"""By the name of their page."""


@pipeline("reproduce_paper", ReproduceParameters, lambda p: f"paper {tail(p.budget)}: {tail(p.real)}")
def reproduce_paper(parameters: ReproduceParameters) -> dict[str, Any]:
    """Write a page per table below ``pages/`` of the output: measured and published values, and differences.

    Results of an earlier run with the same inputs are reused.

    Returns:
        Locations of the pages by table.
    """
    budget = load_budget(parameters.budget)
    folder, pages, locations = parameters.location("pages"), [], {}
    for name in parameters.tables or TABLES:
        page = TABLES[name](parameters, budget)
        locations[name] = task_write_page(folder, page)
        pages.append(page)
        publish_markdown(f"paper-{name}", page.markdown())
    index = task_write_index(folder, pages, parameters.budget)
    return {"index": index, "pages": locations}
