"""Denoisers: published networks by name, and trained denoisers from bundles.

>>> from pngmodel.denoisers import Denoiser
>>> clean = Denoiser.from_pretrained("runs/denoisers/real/seed-0/bundle").denoise(noisy)
"""

from __future__ import annotations

from pngmodel.denoisers.denoiser import DENOISER_FORMAT, Denoiser, ImageDenoiser
from pngmodel.denoisers.registry import DENOISERS, DenoiserConfig, build

__all__ = ["DENOISERS", "DENOISER_FORMAT", "Denoiser", "DenoiserConfig", "ImageDenoiser", "build"]
