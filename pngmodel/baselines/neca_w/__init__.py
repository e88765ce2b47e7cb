"""NeCA-W: noise of signal-dependent strength, then correlated with its neighbours (CVPR 2023).

Fu, Guo, Wen, "sRGB Real Noise Synthesizing with Neighboring Correlation-Aware Noise Model". An independent
implementation of the whole framework (W): gain estimation, noise-level prediction, neighbouring correlation. Published
sizes and weights are those of the authors' release. ``NeCAWGenerator.simplifications`` says what differs.
"""

from __future__ import annotations

from pngmodel.baselines.neca_w.generator import NeCAWGenerator
from pngmodel.baselines.neca_w.network import NeCAW, NeCAWConfig
from pngmodel.baselines.neca_w.objective import NeCAWObjective

__all__ = ["NeCAW", "NeCAWConfig", "NeCAWGenerator", "NeCAWObjective"]
