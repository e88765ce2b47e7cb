"""Generator of C2N. It reproduces the noise of its training data and ignores the reference."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.c2n.network import C2N, Randomness
from pngmodel.baselines.imitator import Imitator
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class C2NGenerator(Imitator[C2N]):
    """Samples noise from random numbers of the image and of its pixels; ignores the reference, as in the paper."""

    name = "c2n"
    prompt_names: ClassVar[frozenset[str]] = frozenset()
    simplifications = (
        "as in the paper, the reference is ignored: the noise level of an image is sampled from the training data",
        "generator and critic are updated simultaneously instead of alternately, the generator with a tenth of the "
        "learning rate",
        "noise is limited to half of the image range, weights are averaged, and sizes are smaller than published "
        "unless the card states otherwise",
        "noisy and clean crops come from different pairs of a batch, sampled from the same stores",
        "the gradient penalty is independent of the crop size, and the term on the mean of the noise has weight 1, a "
        "hundred times the published one",
    )

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return ``ignored`` (1, 1), because prompts must not be empty."""
        return {"ignored": noisy.new_zeros(1, 1)}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return noise (1, 3, H, W)."""
        config, g = self.network.config, generator(seed)
        shape = (1, config.width, *clean.shape[-2:])
        normal = (torch.randn((1, config.randomness), generator=g), torch.randn(shape, generator=g))
        uniform = torch.rand(shape, generator=g)
        return self.network(clean, Randomness(*(x.to(clean.device) for x in (*normal, uniform))))
