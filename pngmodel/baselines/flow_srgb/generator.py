"""Flow-sRGB with the face of every noise generator."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.flow_srgb.flow import SQUEEZE, FlowSRGB, described
from pngmodel.baselines.imitator import Imitator
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class FlowSRGBGenerator(Imitator[FlowSRGB]):
    """Draws white numbers and sends them through the flow, which is told the reference's levels and structure."""

    name = "flow_srgb"
    prompt_names: ClassVar[frozenset[str]] = frozenset({"mean", "std", "structure"})
    multiple = SQUEEZE
    simplifications = (
        "conditioned on the reference's mean and std against intensity and on ten numbers about its structure, where "
        "the paper is told camera and ISO",
        "those conditions are taken from the training crop itself",
        "noise is unshuffled by 2 before the flow steps, so that couplings can relate neighbouring pixels",
        "depth and width are ours, chosen for training on a processor; the paper's were not looked up",
    )

    def __init__(self, network: FlowSRGB, *, device: str = "cpu") -> None:
        super().__init__(network, device=device)
        self._kernels = self.network.unmixing()

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """``mean`` and ``std`` (1, 3, K) against intensity, ``structure`` (1, 10)."""
        return described(noisy - clean, clean)

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise (1, 3, H, W)."""
        height, width = (side // SQUEEZE for side in clean.shape[-2:])
        z = torch.randn((1, clean.shape[1] * SQUEEZE**2, height, width), generator=generator(seed))
        return self.network.inverse(z.to(clean.device), clean, prompts, self._kernels)
