"""Flow-sRGB: a conditional normalising flow of the noise itself, given the clean image (CVPR 2022).

Kousha, Maleky, Brown, Brubaker, "Modeling sRGB Camera Noise with Normalizing Flows". An independent implementation,
which imitates a reference without being told camera and ISO; ``FlowSRGBGenerator.simplifications`` says what differs.
"""

from __future__ import annotations

from pngmodel.baselines.flow_srgb.flow import FlowSRGB, FlowSRGBConfig
from pngmodel.baselines.flow_srgb.generator import FlowSRGBGenerator
from pngmodel.baselines.flow_srgb.objective import FlowSRGBObjective

__all__ = ["FlowSRGB", "FlowSRGBConfig", "FlowSRGBGenerator", "FlowSRGBObjective"]
