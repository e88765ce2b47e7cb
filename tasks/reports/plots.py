"""Plots of the reports. Each function returns an image as a data URI, so that pages open without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pngmodel.metrics.autocorrelation import autocorrelation
from tasks.reports.pages import data_uri, picture
from tasks.reports.results import Example

_NOISE_GAIN = 4
_LAGS = 7
_COLOURS = {"real": "#b5b5b5", "model": "#0072b2", "heteroscedastic": "#d55e00", "spectrum_matched": "#009e73"}
_LABELS = {"real": "real", "model": "this model", "heteroscedastic": "heteroscedastic Gaussian"} | {
    "spectrum_matched": "spectrum-matched Gaussian"
}
# The real curve is drawn first and wide, so that a matching synthetic curve stays visible on top of it.
_WIDTHS = {"real": 3.6, "model": 1.5, "heteroscedastic": 1.2, "spectrum_matched": 1.2}

Array = NDArray[np.float32]


def _noises(example: Example) -> dict[str, Array]:
    rows = {"real": example.real, **example.generated}
    return {name: np.asarray(rows[name] - example.clean) for name in _COLOURS if name in rows}


def grid(examples: Sequence[Example], side: int = 128, *, small: bool = False) -> str:
    """Plot one row of centre crops per example: clean, real noisy, synthetic noisy, and both noise maps times 4.

    Args:
        examples: Evaluated pairs with a sample of the generator ``model``.
        side: Height and width of a crop, pixels.
        small: See :func:`tasks.reports.pages.data_uri`.
    """
    titles = ("clean", "real noisy", "synthetic noisy", f"real noise ×{_NOISE_GAIN}", f"synthetic noise ×{_NOISE_GAIN}")
    figure = Figure(figsize=(11, 2.25 * len(examples) + 0.3), layout="constrained")
    axes = figure.subplots(len(examples), len(titles), squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        height, width = example.clean.shape[-2:]
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        cut = np.s_[:, top : top + side, left : left + side]
        clean, real, synthetic = (np.asarray(x)[cut] for x in (example.clean, example.real, example.generated["model"]))
        noises = (0.5 + _NOISE_GAIN * (x - clean) for x in (real, synthetic))
        for axis, image in zip(row, (clean, real, synthetic, *noises), strict=True):
            axis.imshow(picture(image), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        label = example.id if len(example.id) <= 22 else "…" + example.id[-21:]
        row[0].set_ylabel(f"{label}\n{example.camera or 'camera unknown'} ISO {example.iso or '?'}", fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    return data_uri(figure, small=small)


def corpus_grid(samples: Sequence[tuple[str, Array, Array]], *, small: bool = False) -> str:
    """Plot pairs of a corpus, two per row.

    Args:
        samples: (label, clean, noisy), with images (C, H, W) in [0, 1].
        small: See :func:`tasks.reports.pages.data_uri`.
    """
    rows = -(-len(samples) // 2)
    figure = Figure(figsize=(11, 2.0 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 6, squeeze=False).reshape(-1, 3)
    for axis in axes.flatten():
        axis.axis("off")
    for (first, second, third), (label, clean, noisy) in zip(axes, samples, strict=False):
        for axis, image in zip(
            (first, second, third), (clean, noisy, 0.5 + _NOISE_GAIN * (noisy - clean)), strict=True
        ):
            axis.imshow(picture(image), interpolation="nearest")
        first.set_title(label, fontsize=8, loc="left")
    return data_uri(figure, small=small)


def histograms(examples: Sequence[Example]) -> str:
    """Plot the density of real and synthetic noise values per channel, with a logarithmic density axis."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    channels = examples[0].clean.shape[0]
    axes = figure.subplots(1, channels, squeeze=False, sharey=True)[0]
    spread = max(float(np.abs(_noises(e)["real"]).std()) for e in examples)
    edges = np.arange(-round(255 * 6 * spread) - 0.5, round(255 * 6 * spread) + 1.5, 2)
    for channel, axis in enumerate(axes):
        for name, colour in _COLOURS.items():
            values = [255 * _noises(e)[name][channel].ravel() for e in examples if name in _noises(e)]
            if not values:
                continue
            density, _ = np.histogram(np.concatenate(values).round(), bins=edges, density=True)
            middle = (edges[1:] + edges[:-1]) / 2
            axis.plot(
                middle, np.where(density > 0, density, np.nan), color=colour, label=_LABELS[name], lw=_WIDTHS[name]
            )
        axis.set_yscale("log")
        axis.set_xlabel("noise, digital numbers")
        axis.set_title(("red", "green", "blue")[channel] if channels == 3 else "grey", fontsize=10)
    axes[0].set_ylabel("density")
    axes[0].legend(fontsize=8, frameon=False)
    return data_uri(figure)


def std_against_intensity(examples: Sequence[Example], bins: int = 20) -> str:
    """Plot the noise standard deviation against clean intensity, one panel per camera and ISO."""
    groups = _by_camera(examples)
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    edges = np.linspace(0, 1, bins + 1)
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        intensity = np.concatenate([np.asarray(e.clean).ravel() for e in members])
        index = np.clip(np.digitize(intensity, edges) - 1, 0, bins - 1)
        enough = np.bincount(index, minlength=bins) > 400
        for name, colour in _COLOURS.items():
            if name not in _noises(members[0]):
                continue
            noise = np.concatenate([_noises(e)[name].ravel() for e in members])
            stds = np.array([255 * noise[index == b].std() if enough[b] else np.nan for b in range(bins)])
            axis.plot(
                (edges[1:] + edges[:-1]) / 2, stds, color=colour, label=_LABELS[name], lw=_WIDTHS[name], marker="."
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("clean intensity")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("noise std, digital numbers")
    axes[0].legend(fontsize=8, frameon=False)
    return data_uri(figure)


def autocorrelations(examples: Sequence[Example]) -> str:
    """Plot the horizontal autocorrelation of the noise, one panel per camera and ISO."""
    groups = _by_camera(examples)
    figure = Figure(figsize=(11, 3.0), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        for name, colour in _COLOURS.items():
            if name not in _noises(members[0]):
                continue
            curves = [autocorrelation(torch.from_numpy(_noises(e)[name]), _LAGS)[0].numpy() for e in members]
            axis.plot(
                range(_LAGS + 1),
                [1.0, *np.mean(curves, axis=0)],
                color=colour,
                label=_LABELS[name],
                lw=_WIDTHS[name],
                marker=".",
            )
        axis.axhline(0, color="#bbbbbb", lw=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("lag, pixels")
    axes[0].set_ylabel("autocorrelation")
    axes[-1].legend(fontsize=8, frameon=False)
    return data_uri(figure)


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Plot a confusion matrix: true classes in rows, predictions in columns, counts as text, row shares as shades."""
    matrix = np.asarray(counts, np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = 2.2 + 0.42 * len(names)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            shade = "white" if shares[row, column] > 0.6 else "#333333"
            axis.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=7, color=shade)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    return data_uri(figure)


def _by_camera(examples: Sequence[Example], max_groups: int = 4) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(f"{example.camera or 'camera unknown'} ISO {example.iso or '?'}", []).append(example)
    return dict(sorted(groups.items())[:max_groups])
