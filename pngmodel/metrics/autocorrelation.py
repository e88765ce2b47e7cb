"""Correlation of the noise in space and between colours, which histograms do not measure."""

from __future__ import annotations

import torch
from torch import Tensor

from pngmodel.metrics.differences import check_images, unit_noise

LAGS = 5
_SMALLEST_VARIANCE = 1e-12  # gives noise-free images correlation 0 instead of NaN


def _centred(noise: Tensor) -> Tensor:
    x = noise.double()
    return x - x.mean(dim=(1, 2), keepdim=True)


def autocorrelation(noise: Tensor, lags: int = LAGS) -> Tensor:
    """Return the autocorrelation of noise (C, H, W) at lags ``1..lags``: (2, lags), float64, about in [-1, 1].

    Row 0 is horizontal, row 1 vertical. The mean of each channel is removed, products are averaged over all pairs of
    pixels at that lag, and products and variances are pooled over channels.
    """
    x = _centred(noise)
    variance = x.square().mean().clamp(min=_SMALLEST_VARIANCE)
    horizontal = [(x[:, :, :-k] * x[:, :, k:]).mean() for k in range(1, lags + 1)]
    vertical = [(x[:, :-k] * x[:, k:]).mean() for k in range(1, lags + 1)]
    return torch.stack([torch.stack(horizontal), torch.stack(vertical)]) / variance


def cross_channel(noise: Tensor) -> Tensor:
    """Return the correlations between channels of noise (C, H, W): (C (C - 1) / 2,), in [-1, 1]; RG, RB, GB for RGB."""
    x = _centred(noise).flatten(1)
    covariance = x @ x.T / x.shape[1]
    scale = covariance.diagonal().clamp(min=_SMALLEST_VARIANCE).sqrt()
    matrix = covariance / torch.outer(scale, scale)
    first, second = torch.triu_indices(len(x), len(x), offset=1)
    return matrix[first, second]


def structure_errors(real_noise: Tensor, other_noise: Tensor) -> dict[str, float]:
    """Return the three errors between two noise maps (C, H, W), which may differ in size."""
    gap = (autocorrelation(other_noise) - autocorrelation(real_noise)).abs()
    colours = (cross_channel(other_noise) - cross_channel(real_noise)).abs()
    return {
        "lag1_error": float(gap[:, 0].mean()),
        "autocorrelation_error": float(gap.mean()),
        # grey images have no pairs of channels
        "cross_channel_error": float(colours.mean()) if len(colours) else 0.0,
    }


def autocorrelation_errors(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> dict[str, float]:
    """Return mean absolute errors of correlations, images (C, H, W) in [0, 1]; each in [0, 2], lower is better.

    ``lag1_error``: adjacent pixels, horizontal and vertical. ``autocorrelation_error``: lags 1 to 5 in both directions.
    ``cross_channel_error``: pairs of channels. The noise is computed from clamped images, because clipping affects
    correlations.
    """
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return structure_errors(unit_noise(real_noisy, clean), unit_noise(generated, clean))
