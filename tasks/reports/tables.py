"""Reports: one HTML page that opens from disk without a network, and the corpus card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pngmodel.metrics.protocols import METRICS, SAMPLE_METRICS
from tasks.reports import plots as metrics
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
    """Generators in the order people read them: the models, the baselines, the floor."""
    names = [*NAMES]
    # Further models, which are called by their folders, stand beside the model.
    return dict(sorted(rows.items(), key=lambda item: names.index(item[0]) if item[0] in names else _AFTER_MODEL))


def _distance(metric: str, value: float, floor: float | None) -> float:
    """How far a value is from the best one. Below the floor of a divergence is not better (it hints at leakage)."""
    direction = TABLED[metric].direction
    if direction == "lower" and floor is not None:
        return abs(value - floor) if metric == "akld" else max(value - floor, 0.0)
    return {"lower": value, "higher": -value, "one": abs(value - 1), "zero": abs(value)}[direction]


def metrics_table(rows: Mapping[str, Mapping[str, float]], title: str) -> dict[str, Any]:
    """A table for the template: metrics down, generators across, the best generator of each metric marked."""
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
    samples: Iterable[tuple[str, metrics.Array, metrics.Array]] = (),
) -> str:
    """The page as text. ``samples`` are pairs of a corpus to show: (label, clean, noisy), (C, H, W) in [0, 1]."""
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
            "uri": metrics.grid(_spread(evaluation)),
            "caption": "Centre crops. Noise maps are multiplied by 4 around mid grey; they should look alike in grain, "
            "colour and strength, and must not be the same.",
        },
        {
            "title": "Noise distribution",
            "uri": metrics.histograms(examples),
            "caption": "All evaluated pairs together, levels rounded, logarithmic axis.",
        },
        {
            "title": "Noise strength against intensity",
            "uri": metrics.std_against_intensity(examples),
            "caption": "Standard deviation of the noise in bins of clean intensity.",
        },
        {
            "title": "Spatial correlation",
            "uri": metrics.autocorrelations(examples),
            "caption": "Correlation of the noise with itself at a horizontal distance. White noise is 0 from 1 on.",
        },
    ]
    shown = list(samples)
    if shown:
        pictures.insert(
            0,
            {
                "title": "Samples of the corpus",
                "uri": metrics.corpus_grid(shown),
                "caption": "Clean, synthetic noisy, noise ×4. The label names the reference whose noise was imitated.",
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
    """Real and synthetic noise on the same images, small enough for an artifact of the run."""
    return metrics.grid(_spread(evaluation), small=True)


def _spread(evaluation: Evaluation) -> list[Example]:
    """Some examples, evenly spread."""
    examples = evaluation.examples
    return list(examples[:: max(1, len(examples) // _ROWS_OF_GRID)][:_ROWS_OF_GRID])


def simplified(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Re-implemented generators of a record by the names of its tables, with how each differs from its paper."""
    return [(NAMES.get(row, row), lines) for row, lines in ordered(record.get("simplifications", {})).items()]


def simplified_note(record: Mapping[str, Any]) -> str:
    """:func:`simplified` as markdown, to stand below a table; empty where there is nothing to tell."""
    lines = [f"- {plain(name)}: {plain('; '.join(told))}." for name, told in simplified(record)]
    return "\n".join(["", "Re-implementations, which differ from their papers:", "", *lines, ""]) if lines else ""


def markdown_table(rows: Mapping[str, Mapping[str, float]], metrics: Iterable[str]) -> str:
    """The chosen figures as a markdown table, generators down."""
    columns = list(metrics)
    head = ["generator", *(f"{c} {ARROWS[TABLED[c].direction]}" for c in columns)]
    cells = {key: [f"{row[c]:.4f}" if c in row else "–" for c in columns] for key, row in ordered(rows).items()}
    return table(head, [[NAMES.get(key, key), *of] for key, of in cells.items()])


def c2st_table(record: Mapping[str, Any]) -> str:
    """A record of :mod:`tasks.evaluation.c2st` as a markdown table, generators down."""
    rows = [
        (NAMES.get(key, key), f"{row['auc']:.3f}", spread_text(row)) for key, row in ordered(record["metrics"]).items()
    ]
    return table(("generator", "AUC →.5", "spread over seeds"), rows) + simplified_note(record)


def trained_table(results: Iterable[Mapping[str, Any]]) -> str:
    """What :func:`tasks.denoising.training.train_denoisers` returned as a markdown table."""
    rows = [(r["arm"], r["seed"], r["steps"], "yes" if r["finished"] else "no", r.get("bundle", "–")) for r in results]
    return table(("arm", "seed", "steps", "finished", "bundle"), rows)


def with_spread(row: Mapping[str, Any], name: str, digits: int, scale: float = 1.0) -> str:
    """A figure times ``scale``, ± its standard deviation over seeds where there are several."""
    spread = f" ± {scale * row[f'{name}_spread']:.{digits}f}" if f"{name}_spread" in row else ""
    return f"{scale * row[name]:.{digits}f}{spread}"


def spread_text(row: Mapping[str, Any]) -> str:
    """Standard deviation over seeds in words; a dash where there is one value."""
    return f"{row['auc_spread']:.3f}" if "auc_spread" in row else "–"
