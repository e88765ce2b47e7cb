"""Whitening: normalises noise by the conditional distribution of the reference given the clean intensity.

The model then only learns the correlation structure, and the noise level is correct from the first step. The curves are
applied again at generation. This is an addition to PNG (see docs/design.md), disabled with ``none``. Kinds:

``moments``    u = (n - mean(I)) / std(I), with a cubic least squares fit of both curves and a lower limit of the std.
``quantiles``  u = Phi^-1(F_I(n)), with the whole conditional distribution, including skew, tails and clipping. Camera
               noise after tone mapping is skewed (-0.3 to -0.9 on SIDD), which mean and std do not represent.
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
_SCORES = torch.linspace(-3, 3, 25)  # standard normal scores of the quantiles
_STEP = float(_SCORES[1] - _SCORES[0])
_CLIP = {"moments": 5.0, "quantiles": 4.5}
_PIXELS_PER_CHUNK = 1 << 18  # limits memory: a row of quantiles per pixel takes 0.5 GB per megapixel
_MIN_SLOPE = 1e-5  # keeps the quantile function invertible if clipping makes it constant


def _dithered(noise: Tensor, noisy: Tensor) -> Tensor:
    """Dequantise noise of 8-bit images, whose quantile function would otherwise have steps."""
    scaled = noisy * 255
    if float((scaled - scaled.round()).abs().max()) > 1e-3:
        return noise
    jitter = torch.rand(noise.shape, generator=generator("whitening dither")) - 0.5
    return noise + jitter.to(noise.device) / 255


def fit(kind: Kind, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Fit the curves of a reference pair, both images (C, H, W) in [0, 1]; empty for ``none``."""
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
    probabilities = torch.special.ndtr(_SCORES)
    knots, values = [], []
    # A constant image has a single intensity, so every bin has all of its pixels.
    flat = bool(intensity[order[0]] == intensity[order[-1]])
    for chunk in [order] * bins if flat else order.tensor_split(bins):
        knots.append(intensity[chunk].mean())
        quantiles = torch.quantile(noise[chunk], probabilities)
        increasing = quantiles.cummax(0).values + _MIN_SLOPE * torch.arange(len(_SCORES))
        values.append(increasing)
    return torch.stack(knots), torch.stack(values)


def _between(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the knot below and weight of the knot above; constant outside the knots."""
    if len(knots) == 1:
        return torch.zeros_like(at, dtype=torch.long), torch.zeros_like(at)
    below = (torch.searchsorted(knots, at.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
    span = (knots[below + 1] - knots[below]).clamp(min=1e-6)
    return below, ((at - knots[below]) / span).clamp(0, 1)


class _Curve:
    """Curve values (K, Q) at the intensity of each pixel, one column of Q at a time to save memory."""

    def __init__(self, knots: Tensor, values: Tensor, intensity: Tensor) -> None:
        self.width = values.shape[1]
        self._values = values.flatten()
        below, self._weight = _between(knots, intensity)
        self._below, self._above = below * self.width, (below + 1).clamp(max=len(knots) - 1) * self.width

    def at(self, column: Tensor | int) -> Tensor:
        below, above = (self._values.take(row + column) for row in (self._below, self._above))
        return below.lerp(above, self._weight)


def _rows(knots: Tensor, values: Tensor, intensity: Tensor) -> Tensor:
    """Curve values (pixels, Q) at the intensity of each pixel."""
    below, weight = _between(knots, intensity)
    above = (below + 1).clamp(max=len(knots) - 1)
    return values[below].lerp(values[above], weight[:, None])


def whiten(kind: Kind, curves: Curves, noisy: Tensor, clean: Tensor) -> Tensor:
    """Convert the noise of a pair (C, H, W) in [0, 1] to model units: about N(0, 1), or in [-2, 2] for ``none``."""
    noise = noisy.float() - clean.float()
    if kind == "none":
        return 2 * noise
    if kind == "quantiles":
        noise = _dithered(noise, noisy)
    out = torch.empty(noise.shape, device=noise.device)  # contiguous
    for c in range(noise.shape[0]):
        flat = out[c].view(-1)
        for n, i, u in zip(
            *(x.split(_PIXELS_PER_CHUNK) for x in (noise[c].flatten(), clean[c].float().flatten(), flat)), strict=True
        ):
            # Compute one row per intensity instead of per pixel: 8-bit images have at most 256.
            intensities, index = torch.unique(i, return_inverse=True)
            rows = _rows(curves["knots"][c], curves["values"][c], intensities)[index]
            if kind == "moments":
                u.copy_((n - rows[:, 0]) / rows[:, 1])
                continue
            j = (torch.searchsorted(rows, n[:, None], right=True) - 1).clamp(0, rows.shape[1] - 2)
            left, right = rows.gather(1, j)[:, 0], rows.gather(1, j + 1)[:, 0]
            u.copy_(_SCORES[0] + _STEP * (j[:, 0] + (n - left) / (right - left)))
    return out.clamp(-_CLIP[kind], _CLIP[kind])


def unwhiten(kind: Kind, curves: Curves, u: Tensor, clean: Tensor) -> Tensor:
    """Convert model units (C, H, W) to noise for a clean image in [0, 1]; inverse of :func:`whiten`."""
    if kind == "none":
        return u / 2
    out = torch.empty(u.shape, device=u.device)  # contiguous
    u = u.clamp(-_CLIP[kind], _CLIP[kind])
    curves = {name: value.to(u.device) for name, value in curves.items()}
    for c in range(u.shape[0]):
        flat = out[c].view(-1)
        for v, i, n in zip(
            *(x.split(_PIXELS_PER_CHUNK) for x in (u[c].flatten(), clean[c].float().flatten(), flat)), strict=True
        ):
            curve = _Curve(curves["knots"][c], curves["values"][c], i)
            if kind == "moments":
                n.copy_(curve.at(0) + curve.at(1) * v)
                continue
            position = (v - float(_SCORES[0])) / _STEP
            j = position.floor().long().clamp(0, curve.width - 2)
            left, right = curve.at(j), curve.at(j + 1)
            n.copy_(left + (right - left) * (position - j))
    return out


def interpolated(a: Curves, b: Curves, weight: float) -> dict[str, Tensor]:
    """Interpolate between two curves at equal intensities: (1 - weight) a + weight b.

    Both curves are evaluated at the union of their knots, (C, Ka + Kb), because the knots differ between references.
    Both are linear between these knots, so this is exact. Interpolated quantiles are increasing, and the std of two
    distributions of equal shape is interpolated linearly.
    """
    knots = torch.cat([a["knots"], b["knots"]], dim=1).sort(dim=1).values
    mixed = []
    for channel, at in enumerate(knots):
        first, second = (_rows(x["knots"][channel], x["values"][channel], at) for x in (a, b))
        mixed.append(first.lerp(second, weight))
    return {"knots": knots, "values": torch.stack(mixed)}
