"""Between the noise of an image and what the network sees: whitening, decorrelation, and their inverses.

    noise of a pair --whiten--> u: about N(0, 1) at every intensity --decorrelate--> e: no second-order structure

Each arrow is fitted on the reference and undone at generation, so that the level, the distribution and the spectrum
come from the reference and the network learns what is beyond them (docs/design.md). Options of :class:`ModelConfig`
switch both off; then u and e are the noise in [-2, 2], as published.
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
"""Names of what :meth:`NoiseUnits.calibration` returns."""


class NoiseUnits:
    """The two transforms of one configuration. Images (3, H, W) in [0, 1]; H and W even for ``polyphase``."""

    def __init__(self, config: ModelConfig) -> None:
        self._whitening = config.whitening
        self._decorrelation = config.decorrelation
        self._covariance = config.decorrelation != "none" or config.calibration in ("colours", "spectrum")
        curves = (CURVES + "knots", CURVES + "values") if config.whitening != "none" else ()
        self.names: frozenset[str] = frozenset((*curves, COVARIANCE) if self._covariance else curves)
        """Names of what :meth:`fit` returns."""

    def fit(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Whitened noise u of a reference pair, cropped to multiples of 8, and what undoes both transforms."""
        curves = whitening.fit(self._whitening, noisy, clean)
        u = whitening.whiten(self._whitening, curves, noisy, clean)
        # Cropped, not padded: invented pixels would bias the statistics.
        u = u[:, : u.shape[1] // 8 * 8, : u.shape[2] // 8 * 8]
        fitted = {CURVES + name: value for name, value in curves.items()}
        if self._covariance:
            fitted[COVARIANCE] = self.covariances(u)
        return u, fitted

    def covariances(self, u: Tensor) -> Tensor:
        """Covariances of whitened noise: between channels, or between channels and places in the 2 x 2 pattern."""
        # A small reference does not know its far lags: what is estimated must stay below what is measured.
        side = min(u.shape[-2:])
        if self._decorrelation == "polyphase":
            return spectrum.covariances(spectrum.to_phases(u), min(spectrum.REACH, side // _SIDE_PER_LAG))
        return spectrum.covariances(u, min(spectrum.REACH, max(1, side // _SIDE_PER_LAG)))

    def calibration(
        self, samples: Sequence[Tensor], noise: Tensor, clean: Tensor, fitted: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What :meth:`calibrated` needs: from whitened ``samples`` on the reference's clean image, and its noise there.

        The covariance aimed at is the reference's at lag 0, of unit variance, and corrected for what the curves do to
        correlations between colours: they are not straight, so that u and noise do not have the same.
        """
        half = fitted[COVARIANCE].shape[-1] // 2
        found = {
            "sampled_mean": torch.stack([sample.mean(dim=(1, 2)) for sample in samples]).mean(0),
            "sampled_covariance": torch.stack([self.covariances(sample) for sample in samples]).mean(0),
            "colour_target": _of_unit_variance(fitted[COVARIANCE][..., half, half], samples[0].shape[0]),
        }
        made = [self.unwhitened(self.calibrated(sample, {**fitted, **found}), clean, fitted) for sample in samples]
        missing = _colour_correlation(noise) - torch.stack([_colour_correlation(x) for x in made]).mean(0)
        locations = found["colour_target"].shape[0] // len(missing)
        found["colour_target"] += torch.kron(missing.clamp(-_MOST_CORRECTED, _MOST_CORRECTED), torch.eye(locations))
        return found

    def calibrated(self, u: Tensor, prompts: Mapping[str, Tensor]) -> Tensor:
        """Whitened noise of a generator, carried over to the covariances of the reference, (C, H, W).

        By untapered estimates: what colouring leaves too small is put right here. Mean and lag 0 are exact per image.
        """
        # Lags of 7 pixels in both forms.
        reach = spectrum.REACH // 2 if self._decorrelation == "polyphase" else spectrum.REACH
        ends = (spectrum.within(prompts[name], reach) for name in ("sampled_covariance", COVARIANCE))
        u = self._filtered(u - prompts["sampled_mean"][:, None, None].to(u.device), _transport, *map(_bytes, ends))
        return self._matched(u, prompts["colour_target"])

    def _filtered(self, u: Tensor, filter_of: _FilterOf, *windows: _Stored) -> Tensor:
        if self._decorrelation == "polyphase":
            return spectrum.from_phases(_through(spectrum.to_phases(u), filter_of, *windows))
        return _through(u, filter_of, *windows)

    def colour_matched(self, u: Tensor, covariance: Tensor) -> Tensor:
        """Whitened noise with mean 0 and exactly the covariance at lag 0 that ``covariance`` has."""
        half = covariance.shape[-1] // 2
        return self._matched(u, covariance[..., half, half])

    def _matched(self, u: Tensor, target: Tensor) -> Tensor:
        if self._decorrelation == "polyphase":
            return spectrum.from_phases(spectrum.colour_matched(spectrum.to_phases(u), target))
        return spectrum.colour_matched(u, target)

    def decorrelated(self, u: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """u -> e, what the network learns."""
        if self._decorrelation == "none":
            return u
        return self._filtered(u, _decorrelating, _bytes(fitted[COVARIANCE])).clamp(-_LIMIT, _LIMIT)

    def coloured(self, e: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """e -> u."""
        if self._decorrelation == "none":
            return e
        return self._filtered(e, _colouring, _bytes(fitted[COVARIANCE]))

    def unwhitened(self, u: Tensor, clean: Tensor, fitted: Mapping[str, Tensor]) -> Tensor:
        """u -> noise in the clean image's scale."""
        curves = {name.removeprefix(CURVES): v for name, v in fitted.items() if name.startswith(CURVES)}
        return whitening.unwhiten(self._whitening, curves, u, clean)


_SIDE_PER_LAG = 16  # pixels of a reference's side for each lag that is taken from it
_LIMIT = 6.0  # e is about N(0, 1); beyond this it is an accident of the division, and would rule the loss


_MOST_CORRECTED = 0.1  # of a correlation between colours; more would be a reference without noise


def _of_unit_variance(covariance: Tensor, colours: int) -> Tensor:
    """A covariance of colours, or of colours and places, whose mean variance is 1 in every colour."""
    variance = covariance.diagonal().reshape(colours, -1)
    scale = variance.mean(1, keepdim=True).clamp(min=1e-6).rsqrt().expand_as(variance).flatten()
    return covariance * scale[:, None] * scale[None]


def _colour_correlation(noise: Tensor) -> Tensor:
    """Correlation between the colours of noise (C, H, W), (C, C); 0 on the diagonal and where there is no noise."""
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


# A reference is used for many images, and its filters cost as much as the network: they are kept; 3 MB each.
@lru_cache(maxsize=128)
def _colouring(covariance: _Stored) -> Tensor:
    return spectrum.colouring_filter(_window(covariance))


@lru_cache(maxsize=128)
def _transport(drawn: _Stored, reference: _Stored) -> Tensor:
    return spectrum.transport_filter(_window(drawn), _window(reference))


def _through(u: Tensor, filter_of: _FilterOf, *windows: _Stored) -> Tensor:
    """A field through a filter. One that is kept is transformed once per image size while it is in use."""
    taps = filter_of(*windows)
    if filter_of is _decorrelating:  # of one reference for one crop, in training: never used again
        return spectrum.filtered(u, taps)
    found = _response(filter_of, windows, u.shape[-2], u.shape[-1], str(u.device))
    return spectrum.filtered(u, taps.to(u.device), found)


# Few: tens of megabytes each. Two belong to a reference.
@lru_cache(maxsize=4)
def _response(
    filter_of: _FilterOf, windows: tuple[_Stored, ...], height: int, width: int, device: str
) -> Tensor | None:
    return spectrum.response(filter_of(*windows).to(device), height, width)
