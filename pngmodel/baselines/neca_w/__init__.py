"""NeCA-W: signal-dependent noise whose neighbouring pixels are then correlated by a network.

Source: Fu, Guo and Wen, "sRGB Real Noise Synthesizing with Neighboring Correlation-Aware Noise Model", CVPR 2023. This
is an independent implementation of the whole framework (W): gain estimation, noise level prediction and neighbouring
correlation. "Published" sizes and weights are those of the authors' release. For differences see
``NeCAWGenerator.simplifications``.
"""

from __future__ import annotations

from pngmodel.baselines.neca_w.generator import NeCAWGenerator
from pngmodel.baselines.neca_w.network import NeCAW, NeCAWConfig
from pngmodel.baselines.neca_w.objective import NeCAWObjective

__all__ = ["NeCAW", "NeCAWConfig", "NeCAWGenerator", "NeCAWObjective"]
