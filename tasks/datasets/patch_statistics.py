"""Statistics of patches: columns of the patch table, and sums for the statistics of a store.

Integer images are summed as integers, so that the results are exact and independent of machine, order and shards. Float
images are divided by their data range and summed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.stores.layout import CLEAN, NOISY, peak
from tasks.stores.shard_file import Pixels

Number = int | float
Sums = dict[str, Any]
"""``values`` per channel, ``saturated``, and for each of clean, noise and image ``sum`` and ``squares`` per channel."""


def measure(images: dict[str, Pixels], data_range: float) -> tuple[dict[str, Any], Sums]:
    """Return the columns of the patch table and the sums of one patch.

    Args:
        images: Images (C, H, W) by array name.
        data_range: Data range of float images.
    """
    if next(iter(images.values())).dtype.kind == "f":
        images = {name: image / np.float64(data_range) for name, image in images.items()}
    last = images.get(NOISY, next(iter(images.values())))
    channels, values = len(last), last[0].size
    saturated = _saturated(last)
    sums: Sums = {"values": values, "saturated": saturated}
    if len(images) == 2:
        clean, noisy = images[CLEAN], images[NOISY]
        totals = _totals(clean)
        difference = np.subtract(noisy, clean, dtype=_WIDER[clean.dtype])
        noise = [n - c for n, c in zip(_totals(noisy), totals, strict=True)]
        sums["clean"] = {"sum": totals, "squares": _squares(clean)}
        sums["noise"] = {"sum": noise, "squares": _squares(difference)}
    else:
        sums["image"] = {"sum": _totals(last), "squares": _squares(last)}
    scale = peak(last.dtype.name)
    columns: dict[str, Any] = {"saturated": saturated / (channels * values)}
    for kind in ("clean", "noise", "image"):
        if kind in sums:
            mean, std = _moments(sums[kind], values, scale)
            columns |= {f"{kind}_mean": mean} | ({} if kind == "clean" else {f"{kind}_std": std})
    return columns, sums


_WIDER = {np.dtype(np.uint8): np.int16, np.dtype(np.uint16): np.int32, np.dtype(np.float64): np.float64}


def _saturated(image: Pixels) -> int:
    """Number of values at the ends of the range, or beyond them for floats."""
    if image.dtype.kind == "f":
        return int(np.count_nonzero(image <= 0) + np.count_nonzero(image >= 1))
    return int(np.count_nonzero(image == 0) + np.count_nonzero(image == np.iinfo(image.dtype).max))


def _totals(image: Pixels) -> list[Number]:
    """Sum of each channel."""
    flat = image.reshape(len(image), -1)
    if image.dtype.kind == "f":
        return [float(total) for total in flat.sum(1)]
    # uint32 is twice as fast and sufficient for 8-bit patches of up to 4100 x 4100 pixels
    narrow = flat.shape[1] * np.iinfo(image.dtype).max < 2**32
    return [int(total) for total in flat.sum(1, dtype=np.uint32 if narrow else np.uint64)]


def _squares(image: Pixels) -> list[Number]:
    """Sum of squares of each channel: exact per row, and rows added in 64 bits."""
    exact: type[np.number[Any]] = np.float64 if image.dtype.itemsize > 2 or image.dtype == np.uint16 else np.int32
    rows: NDArray[Any] = np.einsum("chw,chw->ch", image, image, dtype=exact)
    if image.dtype.kind == "f":
        return [math.fsum(channel) for channel in rows.tolist()]
    return [int(total) for total in rows.sum(1, dtype=np.int64)]


def _moments(sums: Sums, values: int, scale: float) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, as fractions of ``scale``."""
    means, stds = [], []
    for total, squares in zip(sums["sum"], sums["squares"], strict=True):
        if isinstance(total, int):
            variance = (values * squares - total * total) / values**2  # exact up to the division
        else:
            variance = max(squares / values - (total / values) ** 2, 0.0)
        means.append(total / values / scale)
        stds.append(math.sqrt(variance) / scale)
    return means, stds


def add(parts: Iterable[Sums]) -> Sums:
    """Add the sums of one or more patches or shards."""
    whole: Sums = {}
    for part in parts:
        whole = part if not whole else _added(whole, part)
    return whole


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, dict):
        return {key: _added(a[key], b[key]) for key in a}
    if isinstance(a, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    return a + b


def pooled(sums: Sums, dtype: str) -> dict[str, Any]:
    """Return mean and standard deviation of all pixels for clean, noise or image, and the saturated share."""
    scale, levels = peak(dtype), {}
    for kind in ("clean", "noise", "image"):
        if kind in sums:
            mean, std = _moments(sums[kind], sums["values"], scale)
            levels[kind] = {"mean": mean, "std": std}
    channels = len(next(iter(levels.values()))["mean"])
    return {"levels": levels, "saturated": sums["saturated"] / (channels * sums["values"])}
