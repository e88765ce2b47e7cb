"""Report of a catalogue: an HTML page with examples, and Markdown for an artifact of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.datasets.records import SIDES
from tasks.reports.markdown import code, plain, table
from tasks.reports.pages import TEMPLATES, data_uri, picture
from tasks.stores.shard_file import Pixels

Row = dict[str, Any]
Crop = NDArray[np.float32]
Read = Callable[[Sequence[Row], str], Iterator[Pixels]]
"""Reads one side of rows, in order; see :func:`tasks.datasets.catalogue.read_catalogued`."""

_EXAMPLES = 6
_COLUMNS = 6
_SIDE = 160
_GAIN = 4
_DARK, _MAX_LIFT = 0.25, 10
_MAX_REJECTED = 500
_CAPTION = (
    f"Centre crops of {_SIDE} pixels in order of increasing noise. Noise is multiplied by {_GAIN} and centred on mid "
    "grey. Edges of the scene in the noise indicate misalignment or different brightness."
)
_CAPTION_SINGLE = f"Centre crops of {_SIDE} pixels. The dataset has only noisy or only clean images."
_CAMERAS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def classes(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return one table row per dataset, split, camera and ISO."""
    ordered = sorted(rows, key=_class)
    return [_line(key, list(members)) for key, members in groupby(ordered, key=_class)]


def _class(row: Row) -> tuple[str, str, str, int]:
    return str(row["dataset"]), str(row["split"]), row["camera"] or "", row["iso"] or 0


def _line(key: tuple[str, str, str, int], rows: list[Row]) -> dict[str, str]:
    dataset, split, camera, iso = key
    sizes = sorted({(r["height"], r["width"]) for r in rows})
    largest = f"{sizes[-1][0]} × {sizes[-1][1]}"
    return {
        "dataset": dataset,
        "split": split,
        "camera": camera or "–",
        "ISO": str(iso or "–"),
        "images": str(len(rows)),
        "scenes": str(len({r["scene"] for r in rows})),
        "size": largest if len(sizes) == 1 else f"up to {largest}",
        "kind": ", ".join(sorted({f"{r['dtype']} {'RGB' if r['channels'] == 3 else 'grey'}" for r in rows})),
        "noise std": _mean([100 * float(np.mean(r["noise_std"])) for r in rows if r["noise_std"]], "{:.2f} %"),
        "bias": _mean([100 * float(np.mean(r["noise_mean"])) for r in rows if r["noise_mean"]], "{:+.2f} %"),
        "lag 1": _mean([r["noise_lag1"] for r in rows if r["noise_lag1"] is not None], "{:.2f}"),
    }


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(float(np.mean(values))) if values else "–"


def markdown_classes(rows: Sequence[Row], limit: int = 40) -> str:
    """Format :func:`classes` as a Markdown table. Values that are equal in all rows are listed above it."""
    lines = classes(rows)
    same = [name for name in lines[0] if len(lines) > 1 and len({line[name] for line in lines}) == 1]
    head = [name for name in lines[0] if name not in same]
    cells = [[line[name] for name in head] for line in lines[:limit]]
    above = f"All: {', '.join(f'{name} {plain(lines[0][name])}' for name in same)}.\n\n" if same else ""
    more = f"\n\n… and {len(lines) - limit} more rows in the report." if len(lines) > limit else ""
    return above + table(head, cells).rstrip("\n") + more


def representative_rows(rows: Sequence[Row]) -> list[Row]:
    """Select a few representative rows in order of increasing noise: one per class, or several if classes are few."""
    medians = []
    for _, members in groupby(sorted(rows, key=_class), key=_class):
        ranked = sorted(members, key=_noise)
        medians.append(ranked[len(ranked) // 2])
    candidates = sorted(medians if len(medians) >= _EXAMPLES else rows, key=_noise)
    count = min(_EXAMPLES, len(candidates))
    locations = np.linspace(0, len(candidates) - 1, count).round().astype(int).tolist()
    return [candidates[k] for k in dict.fromkeys(locations)]


def _noise(row: Row) -> tuple[float, str]:
    return float(np.mean(row["noise_std"] or [0.0])), row["pair"]


def catalogue_markdown(rows: Sequence[Row], rejected: Sequence[dict[str, str]], read: Read, limit: int = 50) -> str:
    """Format a catalogue as Markdown for an artifact: a small image, classes, and reasons of rejections."""
    image = f"![examples]({grid(representative_rows(rows), read, small=True)})"
    head = f"# Catalogue\n\n{len(rows)} usable, {len(rejected)} rejected.\n\n{image}\n\n{markdown_classes(rows)}"
    if not rejected:
        return head
    # Ids and reasons contain untrusted names, so format them as code.
    lines = "\n".join(f"- {code(r['id'])}: {code(r['reason'])}" for r in rejected[:limit])
    return f"{head}\n\n## Rejected\n\n{lines}"


def grid(rows: Sequence[Row], read: Read, *, small: bool = False) -> str:
    """Plot centre crops of a few pairs (noisy, clean and noise times 4, two pairs per line) or images."""
    columns = 3 if all(row[side] is not None for row in rows for side in SIDES) else 1
    lines = -(-len(rows) * columns // _COLUMNS)
    figure = Figure(figsize=(11, 2.05 * lines), layout="constrained")
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).reshape(-1, columns)
    for axis in axes.flatten():
        axis.axis("off")
    # Read all rows of a side in one call, so that container files are read in one pass.
    crops = [list(_crops(rows, side, read)) for side in SIDES if rows[0][side] is not None]
    for line, row, *sides in zip(axes, rows, *crops, strict=False):
        for axis, (title, image) in zip(line, _titled(row, sides), strict=False):
            axis.imshow(picture(np.moveaxis(image, -1, 0)), interpolation="nearest")
            axis.set_title(title, fontsize=8, loc="left")
    return data_uri(figure, small=small)


def _crops(rows: Sequence[Row], side: str, read: Read) -> Iterator[Crop]:
    for row, image in zip(rows, read(rows, side), strict=True):
        top, left = (max(0, (row[axis] - _SIDE) // 2) for axis in ("height", "width"))
        yield image[top : top + _SIDE, left : left + _SIDE].astype(np.float32) / row["data_range"]


def _titled(row: Row, sides: Sequence[Crop]) -> Iterator[tuple[str, Crop]]:
    label = f"{row['camera'] or row['pair'][-24:]} {'ISO ' + str(row['iso']) if row['iso'] else ''}".rstrip()
    lift = _lift(sides)
    lifted = f" ×{lift}" if lift > 1 else ""
    yield label + lifted, lift * sides[0]
    if len(sides) == 2:
        noisy, clean = sides
        yield "clean" + lifted, lift * clean
        yield f"noise ×{_GAIN}", 0.5 + _GAIN * (noisy - clean)


def _lift(sides: Sequence[Crop]) -> int:
    """Gain for dark crops: detectors often use a small part of 16 bits, which would appear black."""
    top = max(float(np.quantile(side, 0.999)) for side in sides)
    return 2 ** min(int(-np.log2(top)), _MAX_LIFT) if 0 < top < _DARK else 1


def _noise_against_iso(rows: Sequence[Row]) -> str | None:
    """Plot the noise standard deviation against ISO, one point per pair; None if there is only one ISO value."""
    known = [r for r in rows if r["iso"] and r["noise_std"]]
    if len({r["iso"] for r in known}) < 2:
        return None
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axis = figure.subplots()
    cameras = sorted({r["camera"] or "unknown" for r in known})
    for k, camera in enumerate(cameras):
        of_camera = [r for r in known if (r["camera"] or "unknown") == camera]
        points = [r["iso"] for r in of_camera], [100 * float(np.mean(r["noise_std"])) for r in of_camera]
        axis.plot(*points, "o", color=_CAMERAS[k % len(_CAMERAS)], ms=5, alpha=0.7, mew=0, label=camera)
    axis.set(xscale="log", yscale="log", xlabel="ISO", ylabel="noise std, % of data range")
    ticks = sorted({r["iso"] for r in known})
    axis.set_xticks(ticks, [str(t) for t in ticks], fontsize=7, rotation=45)
    axis.set_xticks([], minor=True)
    axis.legend(fontsize=8, frameon=False, ncols=min(len(cameras), 4))
    return data_uri(figure)


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.0f}" if pixels >= 10e6 else f"{pixels / 1e6:.2g}"


def catalogue_page(commit: dict[str, Any], rows: Sequence[Row], rejected: Sequence[dict[str, str]], read: Read) -> str:
    """Render the report of a catalogue as HTML.

    Args:
        commit: Commit record of the catalogue.
        rows: Rows of its table.
        rejected: ``id`` and ``reason`` of rejected files.
        read: Reads the images of rows.
    """
    pictures = [
        {
            "title": "Examples",
            "uri": grid(representative_rows(rows), read),
            "caption": _CAPTION if all(row[side] is not None for row in rows for side in SIDES) else _CAPTION_SINGLE,
        }
    ]
    if (plot := _noise_against_iso(rows)) is not None:
        caption = "One point per pair, logarithmic axes. Check pairs far from the trend of their camera."
        pictures.append({"title": "Noise standard deviation against ISO", "uri": plot, "caption": caption})
    listed = list(rejected[:_MAX_REJECTED])
    if len(rejected) > _MAX_REJECTED:
        listed.append({"id": "…", "reason": f"{len(rejected) - _MAX_REJECTED} more in rejected.json"})
    count = {name: len({r[name] for r in rows if r[name] is not None}) for name in ("scene", "camera", "iso")}
    return TEMPLATES.get_template("catalogue.html").render(
        title=f"Catalogue of {', '.join(sorted({r['dataset'] for r in rows}))}",
        lead=f"{commit['source']} as {commit['adapter']}",
        facts=[
            ("usable", str(len(rows))),
            ("rejected", str(len(rejected))),
            ("scenes", str(count["scene"])),
            ("cameras", str(count["camera"] or "unknown")),
            ("ISO values", str(count["iso"] or "unknown")),
            ("megapixels", _megapixels(sum(r["height"] * r["width"] for r in rows))),
        ],
        pictures=pictures,
        classes=classes(rows),
        rejected=listed,
        provenance=[
            ("digest", commit["digest"]),
            ("licence", "; ".join(sorted({r["licence"] for r in rows}))),
            ("ignored files (not part of the layout)", str(commit["ignored"])),
        ],
    )
