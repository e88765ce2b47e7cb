"""Whitening by the reference: noise in units of the reference's own distribution against intensity.

The model then learns structure (correlation in space and colour) and the level is right from the first
step; the curves go back on at generation (method.md 4b). Two named kinds beside ``none``:

``moments``    u = (n - mean(I)) / std(I), cubic least squares of both curves, std floored.
``quantiles``  u = Phi^-1(F_I(n)): the whole conditional distribution, so that skew, tails and clipping of the
               reference survive. Camera noise after tone mapping is skewed (-.3 to -.9 on SIDD), which mean
               and std cannot express.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from pngmodel.seeds import generator

Kind = Literal["none", "moments", "quantiles"]
Curves = Mapping[str, Tensor]
"""``knots`` (C, K): clean intensities in [0, 1]; ``values`` (C, K, Q): mean and std, or quantiles, of the noise."""

_MOMENT_KNOTS = 17
_MAX_BINS = 12
_PIXELS_PER_BIN = 1500
_LEVELS = torch.linspace(-3, 3, 25)  # standard normal scores at which quantiles are kept
_STEP = float(_LEVELS[1] - _LEVELS[0])
_CLIP = {"moments": 5.0, "quantiles": 4.5}
_PIXELS_AT_ONCE = 1 << 18  # a row of quantiles per pixel: half a gigabyte per megapixel if made at once
_MIN_SLOPE = 1e-5  # keeps the quantile function invertible where clipping makes it flat


def _dithered(noise: Tensor, noisy: Tensor) -> Tensor:
    """Spread integer levels over their rounding interval, or quantiles of 8-bit noise would be steps."""
    scaled = noisy * 255
    if float((scaled - scaled.round()).abs().max()) > 1e-3:
        return noise
    jitter = torch.rand(noise.shape, generator=generator("whitening dither")) - 0.5
    return noise + jitter.to(noise.device) / 255


def fit(kind: Kind, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Fit the curves of one reference pair, both (C, H, W) in [0, 1]. ``none`` keeps nothing."""
    if kind == "none":
        return {}
    noise = noisy.float() - clean.float()
    if kind == "moments":
        per_channel = [_fit_moments(i.flatten(), n.flatten()) for i, n in zip(clean.float(), noise, strict=True)]
    else:
        noise = _dithered(noise, noisy)
        bins = max(1, min(_MAX_BINS, noise[0].numel() // _PIXELS_PER_BIN))
        per_channel = [
            _fit_quantiles(i.flatten(), n.flatten(), bins) for i, n in zip(clean.float(), noise, strict=True)
        ]
    return {"knots": torch.stack([k for k, _ in per_channel]), "values": torch.stack([v for _, v in per_channel])}


def _fit_moments(intensity: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    low, high = float(intensity.min()), float(intensity.max())
    knots = torch.linspace(low, high, _MOMENT_KNOTS)
    degree = 3 if high - low > 4 / 255 else 0

    def design(at: Tensor) -> Tensor:
        centred = (at.double() - (low + high) / 2) / max((high - low) / 2, 1e-6)
        return torch.stack([centred**p for p in range(degree + 1)], dim=-1)

    at_pixels, at_knots = design(intensity), design(knots)

    def least_squares(target: Tensor) -> Tensor:
        normal = at_pixels.T @ at_pixels + 1e-9 * len(target) * torch.eye(degree + 1, dtype=torch.float64)
        return torch.linalg.solve(normal, at_pixels.T @ target.double())

    mean_fit = least_squares(noise)
    residual = noise.double() - at_pixels @ mean_fit
    variance = (at_knots @ least_squares(residual.square())).clamp(min=0)
    std = variance.sqrt()
    std = std.clamp(min=max(float(std.median()) / 4, 1e-4))
    return knots, torch.stack([at_knots @ mean_fit, std], dim=-1).float()


def _fit_quantiles(intensity: Tensor, noise: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    order = torch.argsort(intensity, stable=True)
    probabilities = torch.special.ndtr(_LEVELS)
    knots, values = [], []
    # A flat image has one intensity only: every bin is the whole image, not a band of its rows.
    flat = bool(intensity[order[0]] == intensity[order[-1]])
    for chunk in [order] * bins if flat else order.tensor_split(bins):
        knots.append(intensity[chunk].mean())
        quantiles = torch.quantile(noise[chunk], probabilities)
        rising = quantiles.cummax(0).values + _MIN_SLOPE * torch.arange(len(_LEVELS))
        values.append(rising)
    return torch.stack(knots), torch.stack(values)


def _between(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the knot below and the weight of the one above, constant outside the knots."""
    if len(knots) == 1:
        return torch.zeros_like(at, dtype=torch.long), torch.zeros_like(at)
    below = (torch.searchsorted(knots, at.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
    span = (knots[below + 1] - knots[below]).clamp(min=1e-6)
    return below, ((at - knots[below]) / span).clamp(0, 1)


class _Curve:
    """Curve values (K, Q) at each pixel's intensity, one of the Q at a time: all would be a large table."""

    def __init__(self, knots: Tensor, values: Tensor, intensity: Tensor) -> None:
        self.width = values.shape[1]
        self._values = values.flatten()
        below, self._weight = _between(knots, intensity)
        self._below, self._above = below * self.width, (below + 1).clamp(max=len(knots) - 1) * self.width

    def at(self, column: Tensor | int) -> Tensor:
        below, above = (self._values.take(row + column) for row in (self._below, self._above))
        return below.lerp(above, self._weight)


def _rows(knots: Tensor, values: Tensor, intensity: Tensor) -> Tensor:
    """Curve values (pixels, Q) at each pixel's intensity."""
    below, weight = _between(knots, intensity)
    above = (below + 1).clamp(max=len(knots) - 1)
    return values[below].lerp(values[above], weight[:, None])


def whiten(kind: Kind, curves: Curves, noisy: Tensor, clean: Tensor) -> Tensor:
    """Noise of a pair (C, H, W) in [0, 1] -> model units: about N(0, 1), or [-2, 2] for ``none``."""
    noise = noisy.float() - clean.float()
    if kind == "none":
        return 2 * noise
    if kind == "quantiles":
        noise = _dithered(noise, noisy)
    out = torch.empty(noise.shape, device=noise.device)  # contiguous
    for c in range(noise.shape[0]):
        flat = out[c].view(-1)
        for n, i, u in zip(
            *(x.split(_PIXELS_AT_ONCE) for x in (noise[c].flatten(), clean[c].float().flatten(), flat)), strict=True
        ):
            # An 8-bit image has 256 intensities at most: one row for each, not for each pixel.
            levels, level = torch.unique(i, return_inverse=True)
            rows = _rows(curves["knots"][c], curves["values"][c], levels)[level]
            if kind == "moments":
                u.copy_((n - rows[:, 0]) / rows[:, 1])
                continue
            j = (torch.searchsorted(rows, n[:, None], right=True) - 1).clamp(0, rows.shape[1] - 2)
            left, right = rows.gather(1, j)[:, 0], rows.gather(1, j + 1)[:, 0]
            u.copy_(_LEVELS[0] + _STEP * (j[:, 0] + (n - left) / (right - left)))
    return out.clamp(-_CLIP[kind], _CLIP[kind])


def unwhiten(kind: Kind, curves: Curves, u: Tensor, clean: Tensor) -> Tensor:
    """Model units (C, H, W) -> noise in the clean image's scale; the inverse of :func:`whiten`."""
    if kind == "none":
        return u / 2
    out = torch.empty(u.shape, device=u.device)  # contiguous
    u = u.clamp(-_CLIP[kind], _CLIP[kind])
    curves = {name: value.to(u.device) for name, value in curves.items()}
    for c in range(u.shape[0]):
        flat = out[c].view(-1)
        for v, i, n in zip(
            *(x.split(_PIXELS_AT_ONCE) for x in (u[c].flatten(), clean[c].float().flatten(), flat)), strict=True
        ):
            curve = _Curve(curves["knots"][c], curves["values"][c], i)
            if kind == "moments":
                n.copy_(curve.at(0) + curve.at(1) * v)
                continue
            position = (v - float(_LEVELS[0])) / _STEP
            j = position.floor().long().clamp(0, curve.width - 2)
            left, right = curve.at(j), curve.at(j + 1)
            n.copy_(left + (right - left) * (position - j))
    return out


def interpolated(a: Curves, b: Curves, weight: float) -> dict[str, Tensor]:
    """Curves between two references' curves: at every intensity (1 - weight) of ``a``'s value and weight of ``b``'s.

    Values belong to knots and knots to a reference, so values of different references do not correspond. Both are read
    at the knots of both, (C, Ka + Kb), between which either is linear: nothing is lost. Mixing quantiles of equal
    probability keeps them rising, and makes the std of two distributions of one shape the mean of their stds.
    """
    knots = torch.cat([a["knots"], b["knots"]], dim=1).sort(dim=1).values
    mixed = []
    for channel, at in enumerate(knots):
        first, second = (_rows(x["knots"][channel], x["values"][channel], at) for x in (a, b))
        mixed.append(first.lerp(second, weight))
    return {"knots": knots, "values": torch.stack(mixed)}
