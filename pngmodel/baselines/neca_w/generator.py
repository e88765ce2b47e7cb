"""Generator of NeCA-W."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.imitator import Imitator
from pngmodel.baselines.neca_w.network import NeCAW
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class NeCAWGenerator(Imitator[NeCAW]):
    """Estimates the gain from the noisy reference image, and generates noise of that gain on any clean image."""

    name = "neca_w"
    prompt_names: ClassVar[frozenset[str]] = frozenset({"gain"})
    simplifications = (
        "one model for all cameras instead of one per camera",
        "only the critic of correlated noise is used, with another residual architecture; a loss on mean, std and "
        "correlations in space and colour replaces the other critic",
        "critic and generator are updated simultaneously instead of five critic steps per generator step; no denoiser "
        "is trained with them",
        "gain and noise level are fitted by logarithms of the std, with the published ratio of weights",
        "the noise level predictor has no normalisation over the image and is initialised to the gain; sizes are "
        "smaller than published unless the card states otherwise",
    )

    def __init__(self, network: NeCAW, *, device: str = "cpu") -> None:
        super().__init__(network, device=device)
        self.multiple = network.config.multiple

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return ``gain`` (1, 1), estimated from the noisy image alone."""
        return {"gain": self.network.gain(noisy)}

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return noise (1, 3, H, W)."""
        white = torch.randn(clean.shape, generator=generator(seed)).to(clean.device)
        return self.network(clean, prompts["gain"], white)[0]
