"""Values reported in the paper (Ko et al., CVPR 2026, arXiv 2603.04870), for comparison. Not our own results."""

from __future__ import annotations

KLD = {"G4": 0.0174, "GP": 0.0143, "IP": 0.0291, "N6": 0.0167, "S6": 0.0193}
"""kld_naflow of PNG by camera, SIDD validation."""
KLD_MEAN, AKLD_MEAN = 0.0194, 0.1108
KLD_OF_OTHERS = {"C2N": 0.2129, "NeCA-W": 0.0342, "NAFlow": 0.0305}
"""Means from the same table."""

DNCNN = {"real": 37.63, "png": 37.55, "naflow": 37.22, "c2n": 33.76, "neca_w": 36.82}
"""PSNR (dB) of DnCNN on the SIDD benchmark by training data; NeCA-W from that method's own paper."""
MIXED = {
    "real": {"PolyU": 36.34, "Nam": 35.35, "SIDD validation": 37.72, "SIDD+": 35.68},
    "png": {"PolyU": 37.98, "Nam": 38.09, "SIDD validation": 37.96, "SIDD+": 36.57},
    "naflow": {"PolyU": 37.29, "Nam": 37.47, "SIDD validation": 37.66, "SIDD+": 36.27},
}
"""PSNR (dB) of a denoiser trained half on real, half on synthetic pairs."""
SCALING = {1: 36.74, 4: 37.23}
"""Mean PSNR (dB) on the external test sets by noise samples per clean image."""

ABLATION: dict[str, tuple[float, float]] = {
    "prompts none": (0.6182, 0.4387),
    "prompts global": (0.0287, 0.1112),
    "prompts global+local": (0.0261, 0.1108),
}
"""KLD and AKLD by the prompts that condition the model."""
ABLATION_KLD = {"condition time": 0.0287, "condition attention": 0.0261, "depth 4": 0.0350, "depth 8": 0.0261}
"""KLD of variants without a reported AKLD; depths from the supplement, via a secondary source."""

SPEED = {"png": {256: 57, 512: 21}, "naflow": {256: 13, 512: 8}}
"""Images per second by side length, on an unspecified GPU."""
