"""Renders records of :mod:`tasks.evaluation.metadata` as tables and as an HTML page with confusion matrices."""

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
    "noise": "noise itself, equal number of parameters",
    "majority": "most frequent class",
    "chance": "chance",
    "published prompts": "PNG's paper: prompts (SIDD, other classes)",
    "published noise": "PNG's paper: baseline (SIDD, other classes)",
}
COLUMNS = {"top1": "top 1", "top3": "top 3", "balanced": "balanced", "within_dataset": "within its dataset"}


def metadata_rows(question: Mapping[str, Any]) -> list[dict[str, str]]:
    """Format the metrics of one task of a record, one row per classifier: mean ± standard deviation, per cent."""
    rows = dict(question["metrics"]) | {f"published {row}": f for row, f in question["published"].items()}
    named = [(NAMES[name], rows[name]) for name in NAMES if name in rows]
    return [{"": name} | {title: _cell(row, key) for key, title in COLUMNS.items()} for name, row in named]


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "–"
    spread = f" ± {100 * row[f'{key}_spread']:.1f}" if f"{key}_spread" in row else ""
    return f"{100 * row[key]:.1f}{spread}"


def metadata_table(record: Mapping[str, Any]) -> str:
    """Format all tasks of a record as Markdown."""
    out = []
    for kind, question in record["tasks"].items():
        rows = metadata_rows(question)
        out += [f"**{plain(kind)}**, {len(question['classes'])} classes, accuracy in per cent", ""]
        out += [table(list(rows[0]), [list(row.values()) for row in rows])]
    return "\n".join(out)


def write_metadata_report(record: Mapping[str, Any], url: str) -> None:
    """Write a record as an HTML page to ``url``."""
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
        title="Camera classification from prompts",
        lead=f"{record['pairs']} noise samples. Networks of equal size classify frozen prompts and the noise itself; "
        "accuracy on held-out scenes, mean and standard deviation over "
        f"{record['budget']['seeds']} seeds.",
        facts=[],
        record=record,
        questions=questions,
    )
    write_bytes(url, page.encode())


task_write_metadata_report = step("write_metadata_report")(write_metadata_report)
