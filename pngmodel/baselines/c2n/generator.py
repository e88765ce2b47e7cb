"""C2N with the face of every noise generator; it imitates its training data and not the reference."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.c2n.network import C2N, Randomness
from pngmodel.baselines.imitator import Imitator
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class C2NGenerator(Imitator[C2N]):
    """Draws the randomness of an image and its pixels; the reference says nothing to it, as in the paper."""

    name = "c2n"
    prompt_names: ClassVar[frozenset[str]] = frozenset()
    simplifications = (
        "as in the paper it is not told the reference: an image's noise level is drawn from the training data's",
        "generator and critic learn simultaneously, the generator at a tenth of the learning rate, where the paper "
        "alternates",
        "the noise is bounded by half of the image's range, weights are averaged, and sizes are smaller than published "
        "unless the card says otherwise",
        "real and clean crops come from different pairs of a batch, drawn from the same stores",
        "the gradient penalty does not depend on the size of crops, and the term on the noise's mean has the weight 1, "
        "a hundred times the published one",
    )

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """``ignored`` (1, 1): the generator needs nothing, but prompts are never empty."""
        return {"ignored": noisy.new_zeros(1, 1)}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise (1, 3, H, W)."""
        config, g = self.network.config, generator(seed)
        shape = (1, config.width, *clean.shape[-2:])
        drawn = (torch.randn((1, config.randomness), generator=g), torch.randn(shape, generator=g))
        uniform = torch.rand(shape, generator=g)
        return self.network(clean, Randomness(*(x.to(clean.device) for x in (*drawn, uniform))))
