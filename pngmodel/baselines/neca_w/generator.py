"""NeCA-W with the face of every noise generator."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.imitator import Imitator
from pngmodel.baselines.neca_w.network import NeCAW
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class NeCAWGenerator(Imitator[NeCAW]):
    """The gain is estimated from the reference's noisy image; levels and noise follow for any clean one."""

    name = "neca_w"
    prompt_names: ClassVar[frozenset[str]] = frozenset({"gain"})
    simplifications = (
        "one model for all cameras, where the paper trains one for each",
        "of its two critics the one of correlated noise, which is a residual network of another kind; in place of the "
        "other a loss on mean, std and correlations in space and colour",
        "critic and generator learn simultaneously, one step of each, where the paper takes five of the critic; no "
        "denoiser is trained with them",
        "gain and levels are fitted by logarithms of their std, with the published ratio of weights",
        "the level predictor is not normalised over the image, and starts at the gain; sizes are smaller than "
        "published unless the card says otherwise",
    )

    def __init__(self, network: NeCAW, *, device: str = "cpu") -> None:
        super().__init__(network, device=device)
        self.multiple = network.config.multiple

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """``gain`` (1, 1), read from the noisy image; the clean one is not looked at."""
        return {"gain": self.network.gain(noisy)}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise (1, 3, H, W)."""
        white = torch.randn(clean.shape, generator=generator(seed)).to(clean.device)
        return self.network(clean, prompts["gain"], white)[0]
