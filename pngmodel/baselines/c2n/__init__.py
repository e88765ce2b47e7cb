"""C2N: a GAN of noisy images, trained on unpaired clean and noisy images.

Source: Jang, Lee, Son and Lee, "C2N: Practical Generative Noise Modeling for Real-World Denoising", ICCV 2021. This is
an independent implementation; "published" sizes are those of the authors' release. For differences see
``C2NGenerator.simplifications``.
"""

from __future__ import annotations

from pngmodel.baselines.c2n.generator import C2NGenerator
from pngmodel.baselines.c2n.network import C2N, C2NConfig
from pngmodel.baselines.c2n.objective import C2NObjective

__all__ = ["C2N", "C2NConfig", "C2NGenerator", "C2NObjective"]
