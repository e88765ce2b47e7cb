"""CC15: 15 crops of the scenes of Nam et al. (CVPR 2016), on which most papers report."""

from __future__ import annotations

import re

from tasks.datasets.adapters.named_pairs import NamedPairs

CC15 = NamedPairs(
    "cc15",
    "terms of the owners (Nam et al., CVPR 2016): not stated, research use",
    re.compile(
        r"(?:.*/)?(?P<pair>(?P<scene>(?P<camera>[a-z0-9]+)_iso(?P<iso>\d+)_\d+))_(?P<side>real|mean)\.png",
        re.IGNORECASE,
    ),
    "Real_ccnoise_denoised_part/5dmark3_iso3200_1_real.png and _mean.png",
    {"5dmark3": "Canon5D3", "d600": "NikonD600", "d800": "NikonD800"},
)
"""Adapter of CC15. Images named ``_ours`` are denoising results and are ignored."""
