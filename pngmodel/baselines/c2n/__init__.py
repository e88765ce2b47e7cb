"""C2N: clean to noisy without pairs, by a generator and a critic (ICCV 2021).

Jang, Lee, Son, Lee, "C2N: Practical Generative Noise Modeling for Real-World Denoising". An independent implementation;
published sizes are those of the authors' release. ``C2NGenerator.simplifications`` says what differs.
"""

from __future__ import annotations

from pngmodel.baselines.c2n.generator import C2NGenerator
from pngmodel.baselines.c2n.network import C2N, C2NConfig
from pngmodel.baselines.c2n.objective import C2NObjective

__all__ = ["C2N", "C2NConfig", "C2NGenerator", "C2NObjective"]
