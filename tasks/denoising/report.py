"""Tables and plots of an evaluation of denoisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pngmodel.metrics.fidelity import psnr
from tasks.datasets.reference_pairs import planned_references
from tasks.denoising.evaluation import REPORT, Rows
from tasks.denoising.measurement import NOISY, Measurement, denoised, pair_of
from tasks.denoising.parameters import EvaluateDenoiserParameters
from tasks.reports.markdown import plain, table
from tasks.reports.pages import TEMPLATES, data_uri, picture
from tasks.reports.tables import NAMES, with_spread
from tasks.runtime.provenance import content_key
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import join, read_if_there, write_bytes

_COLUMNS = 6
_SIDE = 160


def arm_name(arm: str) -> str:
    """Return the display name of an arm."""
    return {NOISY: "noisy images (no denoising)", "real": "real pairs (control)", "nlm": "non-local means"}.get(
        arm, NAMES.get(arm, arm)
    )


def test_title(test: str, found: Mapping[str, Any]) -> str:
    """Return the heading of a test set: pairs, scenes, and a warning if arms were trained on it."""
    seen = found["trained_on"]
    warning = f"; NOT A VALID TEST for {', '.join(seen)}, trained on these pairs" if seen else ""
    return f"{test}, {found['pairs']} pairs of {found['scenes']} scenes{warning}"


def fidelity_table(record: Mapping[str, Any], test: str) -> list[list[str]]:
    """Return the table of a test set, with its header: one row per arm, PSNR and SSIM, difference from the control."""
    found = record["tests"][test]
    rows = [["trained on", "seeds", "PSNR dB ↑", "SSIM ↑", f"PSNR minus {record['control']}", "95 % interval"]]
    ordered = sorted(found["metrics"], key=lambda arm: (arm != NOISY, arm != record["control"]))
    for arm in ordered:
        row, difference = found["metrics"][arm], found["differences"].get(arm, {}).get("psnr")
        cells = [arm_name(arm), "–" if arm == NOISY else str(len(row["seeds"]))]
        cells += [with_spread(row, "psnr", 2), with_spread(row, "ssim", 4)]
        cells += [f"{difference['mean']:+.2f}" if difference else "–"]
        cells += [f"{difference['low']:+.2f} to {difference['high']:+.2f}" if difference else "–"]
        rows.append(cells)
    return rows


def fidelity_markdown(record: Mapping[str, Any]) -> str:
    """Format the tables of all test sets as Markdown."""
    parts = []
    for test, found in record["tests"].items():
        head, *rows = fidelity_table(record, test)
        parts.append(f"### {plain(test_title(test, found))}, {record['protocol']}\n\n{table(head, rows)}")
    return "\n".join(parts)


def write_denoiser_report(
    parameters: EvaluateDenoiserParameters, record: Mapping[str, Any], found: Mapping[Measurement, Rows]
) -> str:
    """Write an HTML page with tables and plots, unless a page of the same record exists.

    Returns:
        Location of the page.
    """
    location, stamp = join(parameters.output, REPORT), f"record {content_key(record)}"
    existing = read_if_there(location)
    if existing is not None and stamp.encode() in existing:
        return location
    trained = [d["training"] for d in record["denoisers"] if "training" in d]
    arms = {d["arm"] for d in record["denoisers"]}
    steps = ", ".join(sorted({str(t.get("steps", "?")) for t in trained})) or "no"
    page = TEMPLATES.get_template("denoisers.html").render(
        title=f"Denoisers, {record['protocol']}",
        lead=f"{len(arms)} kinds of training data, {steps} steps each, tested on {', '.join(record['tests'])}.",
        facts=[],
        record=record,
        tables=[
            {"title": test_title(test, found_), "rows": fidelity_table(record, test)}
            for test, found_ in record["tests"].items()
        ],
        pictures=[_pictures(test.name, record, found) for test in parameters.tests],
        provenance=[
            ("code", record["code"]),
            ("device", record["device"]),
            *((f"{d['arm']}, seed {d['seed']}", f"digest {d['digest']}") for d in record["denoisers"]),
            ("this page", stamp),
        ],
    )
    write_bytes(location, page.encode())
    return location


def small_picture(test: str, record: Mapping[str, Any], found: Mapping[Measurement, Rows]) -> str:
    """Plot best, median and worst image of a test set, small enough for an artifact in Prefect's UI."""
    return _pictures(test, record, found, small=True)["uri"]


def _pictures(
    test: str, record: Mapping[str, Any], found: Mapping[Measurement, Rows], *, small: bool = False
) -> dict[str, str]:
    """Plot the images with the best, median and worst PSNR gain of the best arm other than the control, one per row."""
    by_arm = {(task.candidate.arm, task.candidate.seed): task for task in found if task.test == test}
    arms = list(dict.fromkeys(arm for arm, _ in by_arm if arm != NOISY))
    metrics = record["tests"][test]["metrics"]
    arms.sort(key=lambda arm: (arm != record["control"], -metrics[arm]["psnr"]))  # the control, then the best
    columns = [by_arm[arm, min(seed for a, seed in by_arm if a == arm)] for arm in arms][: _COLUMNS - 2]
    ranked = next((task for task in columns if task.candidate.arm != record["control"]), columns[0])
    noisy = by_arm[NOISY, 0]
    gains = [row["psnr"] - before["psnr"] for row, before in zip(found[ranked], found[noisy], strict=True)]
    order = np.argsort(gains, kind="stable")
    picks = {"best": int(order[-1]), "median": int(order[len(order) // 2]), "worst": int(order[0])}
    title = f"{test}: best, median and worst PSNR gain of {arm_name(ranked.candidate.arm)}"
    caption = "Centre crops with the PSNR of the whole image; first seed of each arm."
    return {"title": title, "uri": _grid([noisy, *columns], picks, small=small), "caption": caption}


def _grid(tasks: list[Measurement], picks: Mapping[str, int], *, small: bool) -> str:
    source = planned_references(*tasks[0].source)
    figure = Figure(figsize=(11, 11 / (len(tasks) + 1) * len(picks) + 0.5), layout="constrained")
    axes = figure.subplots(len(picks), len(tasks) + 1, squeeze=False)
    for row, (label, location) in zip(axes, picks.items(), strict=True):
        k = tasks[0].pairs[location]
        noisy, clean = pair_of(source, k)
        images: list[tuple[str, Tensor, float | None]] = [("clean", clean, None)]
        for task in tasks:
            image = denoised(task.candidate, task.device, noisy)
            images.append((arm_name(task.candidate.arm), image, psnr(image, clean, task.protocol)))
        for axis, (name, image, value) in zip(row, images, strict=True):
            axis.imshow(picture(np.asarray(_centre(image))), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(_short(name) + (f"\n{value:.2f} dB" if value is not None else "\n"), fontsize=8)
        name = source.references[k].id
        row[0].set_ylabel(f"{label}\n{name if len(name) <= 22 else '…' + name[-21:]}", fontsize=8)
    return data_uri(figure, small=small)


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"


def _centre(image: Tensor) -> Tensor:
    y, x = (max(0, (side - _SIDE) // 2) for side in image.shape[-2:])
    return image[:, y : y + _SIDE, x : x + _SIDE]


task_write_denoiser_report = step("write_denoiser_report")(write_denoiser_report)
