"""Metrics of the noise level: standard deviation against intensity, mean, and saturation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pngmodel.metrics.differences import PEAK, check_images, to_8bit, unit_noise

BINS = 16
MIN_PIXELS = 256
_SMALLEST_STD = 0.1 / PEAK  # a tenth of a digital number; keeps ratios of noise-free bins finite


class Curve(NamedTuple):
    """Noise standard deviation and mean against clean intensity."""

    intensity: Tensor
    """Bin centres (bins,) in [0, 1]."""
    std: Tensor
    """Standard deviation (C, bins) in [0, 1]; NaN in bins with too few pixels."""
    mean: Tensor
    """Mean (C, bins) in [-1, 1]; NaN in bins with too few pixels."""
    pixels: Tensor
    """Number of pixels (C, bins)."""


def noise_curve(noise: Tensor, clean: Tensor, bins: int = BINS, min_pixels: int = MIN_PIXELS) -> Curve:
    """Return std and mean of noise (C, H, W) in equal bins of the clean intensity, per channel, float64."""
    channels = noise.shape[0]
    index = (clean.float() * bins).floor().long().clamp(0, bins - 1)
    index = (index + bins * torch.arange(channels, device=index.device)[:, None, None]).flatten()
    n = noise.double().flatten()

    def bin_sums(weights: Tensor | None) -> Tensor:
        return torch.bincount(index, weights, minlength=channels * bins).reshape(channels, bins)

    pixels = bin_sums(None)
    mean = bin_sums(n) / pixels.clamp(min=1)
    std = (bin_sums(n.square()) / pixels.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    few = pixels < min_pixels
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    return Curve(centres, std.masked_fill(few, torch.nan), mean.masked_fill(few, torch.nan), pixels)


def noise_std(noise: Tensor) -> float:
    """Return the standard deviation of noise (C, H, W) about the mean of each channel, pooled over channels."""
    return float(noise.double().var(dim=(1, 2), correction=0).mean().sqrt())


def relative_curve_error(real_noise: Tensor, real_clean: Tensor, noise: Tensor, clean: Tensor) -> float:
    """Return the mean of \\|std / real std - 1\\| over the common bins, weighted by the number of real pixels."""
    real, other = noise_curve(real_noise, real_clean), noise_curve(noise, clean)
    shared = real.std.isfinite() & other.std.isfinite()
    if not bool(shared.any()):  # the image is too small for bins
        return abs(_ratio(noise_std(noise), noise_std(real_noise)) - 1)
    expected, found = (std[shared].clamp(min=_SMALLEST_STD) for std in (real.std, other.std))
    weight = real.pixels[shared].double()
    return float(((found / expected - 1).abs() * weight).sum() / weight.sum())


def std_curve_error(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return the relative error of std against intensity, images (C, H, W) in [0, 1]; in [0, inf), lower is better."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return relative_curve_error(unit_noise(real_noisy, clean), clean, unit_noise(generated, clean), clean)


def std_ratio(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return the ratio of noise stds, generated over real, images (C, H, W) in [0, 1]; best is 1."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return _ratio(noise_std(unit_noise(generated, clean)), noise_std(unit_noise(real_noisy, clean)))


def mean_offset(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return the mean of generated minus real noise in digital numbers of 8 bits, signed; best is 0."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return PEAK * float(unit_noise(generated, clean).double().mean() - unit_noise(real_noisy, clean).double().mean())


def saturation(image: Tensor) -> float:
    """Return the share of values of an image (C, H, W) in [0, 1] that are 0 or 255 after rounding to 8 bits."""
    values = to_8bit(image)
    return float(((values == 0) | (values == PEAK)).double().mean())


def saturation_error(real_noisy: Tensor, generated: Tensor, clean: Tensor) -> float:
    """Return the absolute difference of saturated shares, images (C, H, W) in [0, 1]; in [0, 1], lower is better."""
    check_images(real_noisy=real_noisy, generated=generated, clean=clean)
    return abs(saturation(generated) - saturation(real_noisy))


def _ratio(std: float, real_std: float) -> float:
    return max(std, _SMALLEST_STD) / max(real_std, _SMALLEST_STD)
