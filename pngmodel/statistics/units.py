"""Units of the model: whitening and decorrelation of noise, and their inverses.

    noise of a pair --whiten--> u, about N(0, 1) at every intensity --decorrelate--> e, without second-order structure

Both transforms are fitted to the reference and inverted at generation. Level, distribution and spectrum are therefore
those of the reference, and the network learns the remaining structure (docs/design.md). Both can be disabled in
:class:`ModelConfig`; then u and e are the noise in [-2, 2], as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from pngmodel.network.presets import ModelConfig
from pngmodel.statistics import spectrum, whitening

CURVES = "curve_"
COVARIANCE = "reference_covariance"
CALIBRATION = ("sampled_mean", "sampled_covariance", "colour_target")
"""Names of the tensors of :meth:`NoiseUnits.calibration`."""


class NoiseUnits:
    """The transforms of a configuration, for images (3, H, W) in [0, 1]; H and W must be even for ``polyphase``."""

    def __init__(self, config: ModelConfig) -> None:
        self._whitening = config.whitening
        self._decorrelation = config.decorrelation
        self._covariance = config.decorrelation != "none" or config.calibration in ("colours", "spectrum")
        curves = (CURVES + "knots", CURVES + "values") if config.whitening != "none" else ()
        self.names: frozenset[str] = frozenset((*curves, COVARIANCE) if self._covariance else curves)
        """Names of the tensors of :meth:`fit`."""

    def fit(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the whitened noise u of a reference pair, cropped to multiples of 8, and the fitted parameters."""
        curves = whitening.fit(self._whitening, noisy, clean)
        u = whitening.whiten(self._whitening, curves, noisy, clean)
        # Crop instead of padding, because padded pixels would bias the statistics.
        u = u[:, : u.shape[1] // 8 * 8, : u.shape[2] // 8 * 8]
        fitted = {CURVES + name: value for name, value in curves.items()}
        if self._covariance:
            fitted[COVARIANCE] = self.covariances(u)
        return u, fitted

    def covariances(self, u: Tensor) -> Tensor:
        """Return the covariances of whitened noise: between channels, or between channels and Bayer phases."""
        # Use fewer lags for small references, so that the number of parameters stays below the number of pixels.
        side = min(u.shape[-2:])
        if self._decorrelation == "polyphase":
            return spectrum.covariances(spectrum.to_phases(u), min(spectrum.REACH, side // _SIDE_PER_LAG))
        return spectrum.covariances(u, min(spectrum.REACH, max(1, side // _SIDE_PER_LAG)))

    def calibration(
        self, samples: Sequence[Tensor], noise: Tensor, clean: Tensor, fitted: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the parameters of :meth:`calibrated`.

        The target is the covariance of the reference at lag 0, normalised to unit variance. It is corrected for the
        effect of the nonlinear whitening curves on correlations between channels.

        Args:
            samples: Whitened samples of the generator for ``clean``.
            noise: Noise of the reference.
            clean: Clean image of the reference.
            fitted: Result of :meth:`fit`.
        """
        half = fitted[COVARIANCE].shape[-1] // 2
        found = {
            "sampled_mean": torch.stack([sample.mean(dim=(1, 2)) for sample in samples]).mean(0),
            "sampled_covariance": torch.stack([self.covariances(sample) for sample in samples]).mean(0),
            "colour_target": _of_unit_variance(fitted[COVARIANCE][..., half, half], samples[0].shape[0]),
        }
        noises = [self.unwhitened(self.calibrated(sample, {**fitted, **found}), clean, fitted) for sample in samples]
        error = _colour_correlation(noise) - torch.stack([_colour_correlation(x) for x in noises]).mean(0)
        phases = found["colour_target"].shape[0] // len(error)
        found["colour_target"] += torch.kron(error.clamp(-_MAX_CORRECTION, _MAX_CORRECTION), torch.eye(phases))
        return found

    def calibrated(self, u: Tensor, prompts: Mapping[str, Tensor]) -> Tensor:
        """Transform whitened noise (C, H, W) of a generator to the covariances of the reference.

        The covariances are not tapered, which corrects the bias of the colouring filter. Mean and lag 0 are exact for
        each image.
        """
        # Lags of 7 pixels for both kinds.
        reach = spectrum.REACH // 2 if self._decorrelation == "polyphase" else spectrum.REACH
        ends = (spectrum.within(prompts[name], reach) for name in ("sampled_covariance", COVARIANCE))
        u = self._filtered(u - prompts["sampled_mean"][:, None, None].to(u.device), _transport, *map(_bytes, ends))
        return self._matched(u, prompts["colour_target"])

    def _filtered(self, u: Tensor, filter_of: _FilterOf, *windows: _Stored) -> Tensor:
        if self._decorrelation == "polyphase":
            return spectrum.from_phases(_through(spectrum.to_phases(u), filter_of, *windows))
        return _through(u, filter_of, *windows)

    def colour_matched(self, u: Tensor, covariance: Tensor) -> Tensor:
        """Transform whitened noise to mean 0 and exactly the covariance at lag 0 of ``covariance``."""
        half = covariance.shape[-1] // 2
        return self._matched(u, covariance[..., half, half])

    def _matched(self, u: Tensor, target: Tensor) -> Tensor:
        if self._decorrelation == "polyphase":
            return spectrum.from_phases(spectrum.colour_matched(spectrum.to_phases(u), target))
        return spectrum.colour_matched(u, target)

    def decorrelated(self, u: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """Convert u to e, the target of the network."""
        if self._decorrelation == "none":
            return u
        return self._filtered(u, _decorrelating, _bytes(fitted[COVARIANCE])).clamp(-_LIMIT, _LIMIT)

    def coloured(self, e: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """Convert e to u."""
        if self._decorrelation == "none":
            return e
        return self._filtered(e, _colouring, _bytes(fitted[COVARIANCE]))

    def unwhitened(self, u: Tensor, clean: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """Convert u to noise for a clean image in [0, 1]."""
        curves = {name.removeprefix(CURVES): v for name, v in fitted.items() if name.startswith(CURVES)}
        return whitening.unwhiten(self._whitening, curves, u, clean)


_SIDE_PER_LAG = 16  # required side of a reference per lag, pixels
_LIMIT = 6.0  # e is about N(0, 1); limits outliers of the division, which would dominate the loss


_MAX_CORRECTION = 0.1  # of a correlation between channels; larger errors occur only for references without noise


def _of_unit_variance(covariance: Tensor, colours: int) -> Tensor:
    """Normalise a covariance of channels, or of channels and phases, to a mean variance of 1 per channel."""
    variance = covariance.diagonal().reshape(colours, -1)
    scale = variance.mean(1, keepdim=True).clamp(min=1e-6).rsqrt().expand_as(variance).flatten()
    return covariance * scale[:, None] * scale[None]


def _colour_correlation(noise: Tensor) -> Tensor:
    """Correlations (C, C) between channels of noise (C, H, W); 0 on the diagonal and for channels without noise."""
    x = noise.flatten(1) - noise.flatten(1).mean(1, keepdim=True)
    x = x / x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
    found = x @ x.T / x.shape[1]
    return found - torch.diag(found.diagonal())


_Stored = tuple[bytes, tuple[int, ...]]
_FilterOf = Callable[..., Tensor]


def _bytes(window: Tensor) -> _Stored:
    return window.contiguous().numpy().tobytes(), tuple(window.shape)


def _window(stored: _Stored) -> Tensor:
    return torch.frombuffer(bytearray(stored[0]), dtype=torch.float32).reshape(stored[1])


def _decorrelating(covariance: _Stored) -> Tensor:
    return spectrum.decorrelating_filter(_window(covariance))


# Cached (3 MB per filter), because a reference is used for many images, and computing its filters takes as long as the
# network.
@lru_cache(maxsize=128)
def _colouring(covariance: _Stored) -> Tensor:
    return spectrum.colouring_filter(_window(covariance))


@lru_cache(maxsize=128)
def _transport(sampled: _Stored, reference: _Stored) -> Tensor:
    return spectrum.transport_filter(_window(sampled), _window(reference))


def _through(u: Tensor, filter_of: _FilterOf, *windows: _Stored) -> Tensor:
    """Apply a filter; the frequency responses of cached filters are cached per image size."""
    taps = filter_of(*windows)
    if filter_of is _decorrelating:  # used once per crop in training
        return spectrum.filtered(u, taps)
    found = _response(filter_of, windows, u.shape[-2], u.shape[-1], str(u.device))
    return spectrum.filtered(u, taps.to(u.device), found)


# A small cache, because responses have tens of megabytes; a reference has two.
@lru_cache(maxsize=4)
def _response(
    filter_of: _FilterOf, windows: tuple[_Stored, ...], height: int, width: int, device: str
) -> Tensor | None:
    return spectrum.response(filter_of(*windows).to(device), height, width)
