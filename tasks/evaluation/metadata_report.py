"""The record of :mod:`tasks.evaluation.metadata` as a table and as a page with confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.metadata import ROWS
from tasks.reports.markdown import plain, table
from tasks.reports.pages import TEMPLATES
from tasks.reports.plots import confusion_matrix
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import write_bytes

NAMES = {
    "prompts": "prompts",
    "noise": "noise itself, as many parameters",
    "majority": "always the most frequent",
    "chance": "chance",
    "published prompts": "PNG's paper: prompts (SIDD, other classes)",
    "published noise": "PNG's paper: baseline (SIDD, other classes)",
}
COLUMNS = {"top1": "top 1", "top3": "top 3", "balanced": "balanced", "within_dataset": "within its dataset"}


def metadata_rows(question: Mapping[str, Any]) -> list[dict[str, str]]:
    """Figures of one question as text, one row per kind of answer: mean ± standard deviation over seeds, per cent."""
    rows = dict(question["metrics"]) | {f"published {row}": f for row, f in question["published"].items()}
    told = [(NAMES[name], rows[name]) for name in NAMES if name in rows]
    return [{"": name} | {title: _cell(row, key) for key, title in COLUMNS.items()} for name, row in told]


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "–"
    spread = f" ± {100 * row[f'{key}_spread']:.1f}" if f"{key}_spread" in row else ""
    return f"{100 * row[key]:.1f}{spread}"


def metadata_table(record: Mapping[str, Any]) -> str:
    """All questions as markdown."""
    out = []
    for kind, question in record["tasks"].items():
        rows = metadata_rows(question)
        out += [f"**{plain(kind)}**, {len(question['classes'])} classes, per cent", ""]
        out += [table(list(rows[0]), [list(row.values()) for row in rows])]
    return "\n".join(out)


def write_metadata_report(record: Mapping[str, Any], url: str) -> None:
    """Publish a record as one page."""
    questions = [
        {
            "name": kind,
            "rows": metadata_rows(question),
            "question": question,
            "pictures": [
                {
                    "title": f"{kind}: {NAMES[row]}",
                    "uri": confusion_matrix(question["confusion"][row], question["classes"]),
                }
                for row in ROWS
            ],
        }
        for kind, question in record["tasks"].items()
    ]
    page = TEMPLATES.get_template("metadata.html").render(
        title="Do prompts tell the camera?",
        lead=f"{record['pairs']} noise samples; networks of equal size on frozen prompts and on the noise itself, "
        "scored on scenes that they were not trained on. Mean and standard deviation over "
        f"{record['budget']['seeds']} seeds.",
        facts=[],
        record=record,
        questions=questions,
    )
    write_bytes(url, page.encode())


task_write_metadata_report = step("write_metadata_report")(write_metadata_report)
