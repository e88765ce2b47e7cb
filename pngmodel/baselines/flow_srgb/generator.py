"""Generator of Flow-sRGB."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pngmodel.baselines.flow_srgb.flow import SQUEEZE, FlowSRGB, reference_conditions
from pngmodel.baselines.imitator import Imitator
from pngmodel.interface import Prompts
from pngmodel.seeds import generator


class FlowSRGBGenerator(Imitator[FlowSRGB]):
    """Maps white noise through the inverse flow, conditioned on noise statistics of the reference."""

    name = "flow_srgb"
    prompt_names: ClassVar[frozenset[str]] = frozenset({"mean", "std", "structure"})
    multiple = SQUEEZE
    simplifications = (
        "conditioned on mean and std of the reference given the intensity and on ten correlation statistics, instead "
        "of camera and ISO",
        "in training, these conditions are measured on the training crop itself",
        "a pixel unshuffle by 2 precedes the flow steps, so that couplings can relate adjacent pixels",
        "depth and width are chosen for training on a CPU and differ from the paper",
    )

    def __init__(self, network: FlowSRGB, *, device: str = "cpu") -> None:
        super().__init__(network, device=device)
        self._kernels = self.network.unmixing()

    def describe(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return ``mean`` and ``std`` (1, 3, K) given the intensity, and ``structure`` (1, 10)."""
        return reference_conditions(noisy - clean, clean)

    def noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Return noise (1, 3, H, W)."""
        height, width = (side // SQUEEZE for side in clean.shape[-2:])
        z = torch.randn((1, clean.shape[1] * SQUEEZE**2, height, width), generator=generator(seed))
        return self.network.inverse(z.to(clean.device), clean, prompts, self._kernels)
