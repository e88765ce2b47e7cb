"""Denoisers by name: a classical denoiser, or the bundle of a trained one at any URL. Cached per process."""

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
_ESTIMATE = "Haar details of every second pixel"  # part of the digest; change it with the estimator
_SMALLEST = 4  # pixels per side: every second pixel is used, and Haar details need two of those
_NORMAL_MEDIAN = 0.6745  # median of the absolute value of a standard normal variable


class NonLocalMeans(ImageDenoiser):
    """Non-local means (Buades et al. 2005) of scikit-image, with the noise standard deviation estimated per image.

    The estimate uses every second pixel, because adjacent pixels of camera images have correlated noise, which an
    estimate on the full grid underestimates. If the estimate is 0, the image is returned unchanged.
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
                f"nlm: the image has {pixels.shape[0]} x {pixels.shape[1]} pixels, too few to estimate its noise; use "
                f"images of at least {_SMALLEST} x {_SMALLEST}"
            )
        sigma = _noise_std(pixels)
        if sigma == 0:
            return image.cpu().float()
        denoised = denoise_nl_means(
            pixels,
            patch_size=_PATCH,
            patch_distance=_DISTANCE,
            h=_STRENGTH * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )
        denoised = denoised.reshape(pixels.shape)  # scikit-image drops the channel axis of grey images
        return torch.from_numpy(np.moveaxis(denoised, -1, 0).astype(np.float32)).clamp(0, 1)


def _noise_std(pixels: NDArray[np.float32]) -> float:
    """Estimate the noise standard deviation of an image (H, W, C) by the median absolute Haar detail (Donoho 1994)."""
    subsampled = pixels[: pixels.shape[0] // 4 * 4 : 2, : pixels.shape[1] // 4 * 4 : 2]
    detail = (subsampled[::2, ::2] - subsampled[1::2, ::2] - subsampled[::2, 1::2] + subsampled[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / _NORMAL_MEDIAN)


CLASSICAL = {NonLocalMeans.name: NonLocalMeans}
"""Denoisers without weights, by name."""


def denoiser_digest(name: str) -> str:
    """Return the identity of a denoiser: the verified digest of a bundle, or a digest of name and settings."""
    if name not in CLASSICAL:
        return verify_bundle(bundle_folder(name))
    settings = [_PATCH, _DISTANCE, _STRENGTH, _ESTIMATE, version("scikit-image")]
    return content_key({"denoiser": name, "settings": settings})


@lru_cache(maxsize=4)
def load_denoiser(name: str, device: str, digest: str) -> ImageDenoiser:
    """Load the denoiser ``name``.

    Args:
        name: Name of a classical denoiser, or location of a bundle.
        device: cpu, cuda or cuda:N.
        digest: Expected :func:`denoiser_digest`.

    Raises:
        UserError: ``name`` is neither a classical denoiser nor the bundle of a denoiser.
        IntegrityError: The bundle is damaged or has another digest.
    """
    if denoiser_digest(name) != digest:
        raise IntegrityError(f"{name}: the denoiser has changed since this run was planned; run the same command again")
    return CLASSICAL[name]() if name in CLASSICAL else Denoiser.from_pretrained(bundle_folder(name), device=device)
