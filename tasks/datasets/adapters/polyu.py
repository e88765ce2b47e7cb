"""PolyU (arXiv 1804.02603): pairs of a single shot and the mean of many shots; crops and original images."""

from __future__ import annotations

import re

from tasks.datasets.adapters.named_pairs import NamedPairs

POLYU = NamedPairs(
    "polyu",
    "HKPolyU: non-commercial use, keep the notice",
    re.compile(
        r"(?:.*/)?(?P<pair>(?P<camera>[^_/]+)_(?P<aperture>[^_/]+)_(?P<shutter>[^_/]+)_(?P<iso>\d+)_"
        r"(?P<scene>[^/]+?)(?:_+(?P<crop>\d+))?)_(?P<side>real|mean)\.jpe?g",
        re.IGNORECASE,
    ),
    "CroppedImages/<camera>_<aperture>_<1/shutter>_<ISO>_<scene>_<k>_real.JPG and _mean.JPG",
)
"""Adapter of PolyU. Noisy and clean images are JPEG files."""
