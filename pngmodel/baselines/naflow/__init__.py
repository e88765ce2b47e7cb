"""NAFlow: a conditional normalizing flow of noisy images, and noise-aware sampling from it (ICLR 2024).

Kim, Jung, Baik, Kim, "sRGB Real Noise Modeling via Noise-Aware Sampling with Normalizing Flows". An independent
implementation; sizes are those of the authors' released configuration. It needs trained weights: a bundle of
``pngnoise train configs/models/naflow.yaml``.

>>> from pngmodel.baselines.naflow import NAFlow, NAFlowConfig, NAFlowGenerator
>>> flow = NAFlow(NAFlowConfig())
>>> noisy = NAFlowGenerator(flow).generate(clean, reference=(real_noisy, real_clean), seed=1)
"""

from __future__ import annotations

from pngmodel.baselines.naflow.flow import NAFlow, NAFlowConfig
from pngmodel.baselines.naflow.generator import NAFlowGenerator
from pngmodel.baselines.naflow.objective import NAFlowObjective

__all__ = ["NAFlow", "NAFlowConfig", "NAFlowGenerator", "NAFlowObjective"]
