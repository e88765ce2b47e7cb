"""Denoisers by name: a classical one, or a trained one's bundle at any URL; one instance per process."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means
from torch import Tensor

from pngmodel.bundle import verify_bundle
from pngmodel.denoisers import Denoiser, ImageDenoiser
from pngmodel.errors import IntegrityError, UserError
from tasks.models.generators import bundle_folder
from tasks.runtime.provenance import content_key

_PATCH, _DISTANCE, _STRENGTH = 5, 6, 0.8
_ESTIMATE = "Haar details of every second pixel"  # another text where another strength is estimated
_SMALLEST = 4  # pixels a side: two of those of which every second one is looked at
_NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal number


class NonLocalMeans(ImageDenoiser):
    """Non-local means (Buades et al. 2005) of scikit-image, with the noise's strength estimated from the image.

    The strength is estimated on every second pixel: neighbours in a camera's image have correlated noise, which the
    estimate by fine wavelets would take for much less of it. An image in which none is found comes back as it is.
    """

    name = "nlm"

    def run(self, noisy: Tensor) -> Tensor:
        """See :class:`~pngmodel.denoisers.ImageDenoiser`."""
        return torch.stack([self._one(image) for image in noisy])

    @staticmethod
    def _one(image: Tensor) -> Tensor:
        pixels = np.moveaxis(image.cpu().numpy().astype(np.float32), 0, -1)
        if min(pixels.shape[:2]) < _SMALLEST:
            raise UserError(
                f"nlm: an image of {pixels.shape[:2]} pixels is too small for an estimate of its noise; give at least "
                f"{_SMALLEST} x {_SMALLEST}"
            )
        sigma = _strength(pixels)
        if sigma == 0:
            return image.cpu().float()
        found = denoise_nl_means(
            pixels,
            patch_size=_PATCH,
            patch_distance=_DISTANCE,
            h=_STRENGTH * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )
        kept = found.reshape(pixels.shape)  # grey images come back without their one channel
        return torch.from_numpy(np.moveaxis(kept, -1, 0).astype(np.float32)).clamp(0, 1)


def _strength(pixels: NDArray[np.float32]) -> float:
    """Std of the noise of an image (H, W, C): the median absolute detail of Haar wavelets (Donoho 1994)."""
    thinned = pixels[: pixels.shape[0] // 4 * 4 : 2, : pixels.shape[1] // 4 * 4 : 2]
    detail = (thinned[::2, ::2] - thinned[1::2, ::2] - thinned[::2, 1::2] + thinned[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / _NORMAL_MEDIAN)


CLASSICAL = {NonLocalMeans.name: NonLocalMeans}
"""Denoisers without weights, by name."""


def denoiser_digest(name: str) -> str:
    """What identifies a denoiser: a bundle's verified digest, or a classical one's name."""
    if name not in CLASSICAL:
        return verify_bundle(bundle_folder(name))
    settings = [_PATCH, _DISTANCE, _STRENGTH, _ESTIMATE, version("scikit-image")]
    return content_key({"denoiser": name, "settings": settings})


@lru_cache(maxsize=4)
def load_denoiser(name: str, device: str, digest: str) -> ImageDenoiser:
    """The denoiser called ``name``, which has this :func:`denoiser_digest`.

    Raises:
        UserError: neither a classical denoiser nor a denoiser's bundle. IntegrityError: a damaged or another one.
    """
    if denoiser_digest(name) != digest:
        raise IntegrityError(
            f"{name}: another denoiser is there since this run was planned; run the same command again"
        )
    return CLASSICAL[name]() if name in CLASSICAL else Denoiser.from_pretrained(bundle_folder(name), device=device)
