"""Flow-sRGB: a conditional normalising flow of the noise, given the clean image.

Source: Kousha, Maleky, Brown and Brubaker, "Modeling sRGB Camera Noise with Normalizing Flows", CVPR 2022. This is an
independent implementation that is conditioned on a reference instead of camera and ISO. For differences see
``FlowSRGBGenerator.simplifications``.
"""

from __future__ import annotations

from pngmodel.baselines.flow_srgb.flow import FlowSRGB, FlowSRGBConfig
from pngmodel.baselines.flow_srgb.generator import FlowSRGBGenerator
from pngmodel.baselines.flow_srgb.objective import FlowSRGBObjective

__all__ = ["FlowSRGB", "FlowSRGBConfig", "FlowSRGBGenerator", "FlowSRGBObjective"]
