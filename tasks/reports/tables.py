"""Tables of metrics in Markdown, and the evaluation report: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pngmodel.metrics.protocols import METRICS, SAMPLE_METRICS
from tasks.reports import plots
from tasks.reports.markdown import plain, table
from tasks.reports.pages import TEMPLATES
from tasks.reports.results import Evaluation, Example

ARROWS = {"lower": "↓", "higher": "↑", "one": "→1", "zero": "→0"}
NAMES = {
    "model": "this model",
    "uncalibrated": "this model, not calibrated",
    "naflow": "NAFlow (ours)",
    "neca_w": "NeCA-W (ours)",
    "flow_srgb": "Flow-sRGB (ours)",
    "c2n": "C2N (ours)",
    "awgn": "AWGN",
    "heteroscedastic": "heteroscedastic Gaussian",
    "spectrum_matched": "spectrum-matched Gaussian",
    "spectrum_matched_quantiles": "spectrum-matched, real distribution",
    "polyphase_matched": "polyphase-matched, real distribution",
    "floor": "floor (perfect generator)",
}
TABLED = METRICS | SAMPLE_METRICS
_ROWS_OF_GRID = 4
_AFTER_MODEL = 1.5
Row = TypeVar("Row")


def ordered(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Sort generators for display: models, then baselines, then the floor."""
    names = [*NAMES]
    # Additional models are named after their folders; list them next to the model.
    return dict(sorted(rows.items(), key=lambda item: names.index(item[0]) if item[0] in names else _AFTER_MODEL))


def _distance(metric: str, value: float, floor: float | None) -> float:
    """Distance of a value from the best possible one. Values below the floor of a divergence count as equal to it,
    because they hint at leakage."""
    direction = TABLED[metric].direction
    if direction == "lower" and floor is not None:
        return abs(value - floor) if metric == "akld" else max(value - floor, 0.0)
    return {"lower": value, "higher": -value, "one": abs(value - 1), "zero": abs(value)}[direction]


def metrics_table(rows: Mapping[str, Mapping[str, float]], title: str) -> dict[str, Any]:
    """Build a table for the template ``report.html``: one line per metric, one column per generator, the best marked.

    Args:
        rows: Metrics by generator.
        title: Heading of the table.
    """
    rows = ordered(rows)
    floor = rows.get("floor", {})
    lines = []
    for name, metric in TABLED.items():
        values = {key: row[name] for key, row in rows.items() if name in row}
        distances = {k: _distance(name, v, floor.get(name)) for k, v in values.items() if k != "floor"}
        if not distances:
            continue
        best = min(distances.values())
        lines.append(
            {
                "name": name,
                "arrow": ARROWS[metric.direction],
                "description": metric.description,
                "cells": [
                    {
                        "text": f"{values[key]:.4f}" if key in values else "–",
                        "best": name in METRICS and key in distances and distances[key] == best,
                        "kind": key if key in ("model", "floor") else "baseline",
                    }
                    for key in rows
                ],
            }
        )
    return {"title": title, "generators": [NAMES.get(key, key) for key in rows], "lines": lines}


def report_page(
    evaluation: Evaluation,
    *,
    title: str,
    lead: str,
    facts: Iterable[tuple[str, str]] = (),
    provenance: Iterable[tuple[str, str]] = (),
    samples: Iterable[tuple[str, plots.Array, plots.Array]] = (),
) -> str:
    """Render the evaluation report as HTML.

    Args:
        evaluation: Record and examples; at least one example is required.
        title: Heading of the page.
        lead: Introductory sentence.
        facts: (name, value) boxes below the heading.
        provenance: (name, value) rows added to model, code and device.
        samples: Pairs of a corpus to show: (label, clean, noisy), images (C, H, W) in [0, 1].
    """
    record, examples = evaluation.record, evaluation.examples
    protocol = record["protocol"]
    tables = [metrics_table(record["metrics"], f"All pairs, {protocol}")]
    if len(record["cameras"]) > 1:
        tables += [metrics_table(rows, f"{camera}, {protocol}") for camera, rows in record["cameras"].items()]
    if len(record.get("settings", ())) > len(record["cameras"]):
        tables += [metrics_table(rows, f"{setting}, {protocol}") for setting, rows in record["settings"].items()]
    pictures = [
        {
            "title": "Real and synthetic noise on the same image",
            "uri": plots.grid(_evenly_spaced(evaluation)),
            "caption": "Centre crops. Noise maps are multiplied by 4 and centred on mid grey. They should match in "
            "grain, colour and strength, but not pixel by pixel.",
        },
        {
            "title": "Noise distribution",
            "uri": plots.histograms(examples),
            "caption": "Density of the noise over all evaluated pairs, in digital numbers; logarithmic axis.",
        },
        {
            "title": "Noise standard deviation against intensity",
            "uri": plots.std_against_intensity(examples),
            "caption": "Standard deviation of the noise in bins of clean intensity.",
        },
        {
            "title": "Spatial autocorrelation",
            "uri": plots.autocorrelations(examples),
            "caption": "Horizontal autocorrelation of the noise. For white noise it is 0 at all lags but 0.",
        },
    ]
    corpus_samples = list(samples)
    if corpus_samples:
        pictures.insert(
            0,
            {
                "title": "Samples of the corpus",
                "uri": plots.corpus_grid(corpus_samples),
                "caption": "Clean, synthetic noisy, noise ×4. The label names the reference pair of the noise.",
            },
        )
    page = TEMPLATES.get_template("report.html")
    return page.render(
        title=title,
        lead=lead,
        facts=list(facts),
        record=record,
        tables=tables,
        notes=simplified(record),
        pictures=pictures,
        provenance=[
            ("model", f"digest {record['model']['digest']}"),
            ("code", record["code"]),
            ("device", record["device"]),
            *provenance,
        ],
    )


def examples_picture(evaluation: Evaluation) -> str:
    """Plot real and synthetic noise on the same images, small enough for an artifact in Prefect's UI."""
    return plots.grid(_evenly_spaced(evaluation), small=True)


def _evenly_spaced(evaluation: Evaluation) -> list[Example]:
    """A few examples, evenly spaced over the evaluation."""
    examples = evaluation.examples
    return list(examples[:: max(1, len(examples) // _ROWS_OF_GRID)][:_ROWS_OF_GRID])


def simplified(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """List how the re-implemented generators of a record differ from their papers: (display name, differences)."""
    return [(NAMES.get(row, row), lines) for row, lines in ordered(record.get("simplifications", {})).items()]


def simplified_note(record: Mapping[str, Any]) -> str:
    """Format :func:`simplified` as a Markdown note below a table; empty if there are none."""
    lines = [f"- {plain(name)}: {plain('; '.join(differences))}." for name, differences in simplified(record)]
    return "\n".join(["", "Differences between re-implementations and their papers:", "", *lines, ""]) if lines else ""


def markdown_table(rows: Mapping[str, Mapping[str, float]], metrics: Iterable[str]) -> str:
    """Format the metrics named ``metrics`` as a Markdown table with one row per generator."""
    columns = list(metrics)
    head = ["generator", *(f"{c} {ARROWS[TABLED[c].direction]}" for c in columns)]
    cells = {key: [f"{row[c]:.4f}" if c in row else "–" for c in columns] for key, row in ordered(rows).items()}
    return table(head, [[NAMES.get(key, key), *of] for key, of in cells.items()])


def c2st_table(record: Mapping[str, Any]) -> str:
    """Format a record of :mod:`tasks.evaluation.c2st` as a Markdown table with one row per generator."""
    rows = [
        (NAMES.get(key, key), f"{row['auc']:.3f}", spread_text(row)) for key, row in ordered(record["metrics"]).items()
    ]
    return table(("generator", "AUC →.5", "std over seeds"), rows) + simplified_note(record)


def trained_table(results: Iterable[Mapping[str, Any]]) -> str:
    """Format the result of :func:`tasks.denoising.training.train_denoisers` as a Markdown table."""
    rows = [(r["arm"], r["seed"], r["steps"], "yes" if r["finished"] else "no", r.get("bundle", "–")) for r in results]
    return table(("arm", "seed", "steps", "finished", "bundle"), rows)


def with_spread(row: Mapping[str, Any], name: str, digits: int, scale: float = 1.0) -> str:
    """Format a metric times ``scale``, with ± its standard deviation if there are several seeds."""
    spread = f" ± {scale * row[f'{name}_spread']:.{digits}f}" if f"{name}_spread" in row else ""
    return f"{scale * row[name]:.{digits}f}{spread}"


def spread_text(row: Mapping[str, Any]) -> str:
    """Format the standard deviation of the AUC over seeds; a dash for a single seed."""
    return f"{row['auc_spread']:.3f}" if "auc_spread" in row else "–"
