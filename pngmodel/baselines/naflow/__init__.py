"""NAFlow: a conditional normalising flow of noisy images with noise-aware sampling.

Source: Kim, Jung, Baik and Kim, "sRGB Real Noise Modeling via Noise-Aware Sampling with Normalizing Flows", ICLR 2024.
This is an independent implementation with the sizes of the authors' released configuration. It requires trained weights
from ``pngnoise train configs/models/naflow.yaml``.

>>> from pngmodel.baselines.naflow import NAFlow, NAFlowConfig, NAFlowGenerator
>>> flow = NAFlow(NAFlowConfig())
>>> noisy = NAFlowGenerator(flow).generate(clean, reference=(real_noisy, real_clean), seed=1)
"""

from __future__ import annotations

from pngmodel.baselines.naflow.flow import NAFlow, NAFlowConfig
from pngmodel.baselines.naflow.generator import NAFlowGenerator
from pngmodel.baselines.naflow.objective import NAFlowObjective

__all__ = ["NAFlow", "NAFlowConfig", "NAFlowGenerator", "NAFlowObjective"]
