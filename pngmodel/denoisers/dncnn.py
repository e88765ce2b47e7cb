"""DnCNN: a plain stack of convolutions that predicts the noise (Zhang et al., TIP 2017)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pngmodel.network.layers import COLOURS, zeroed

_LARGEST_GAIN = 0.025


class DnCNNConfig(BaseModel):
    """Sizes; the defaults are those of the colour model, .67 M parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(20, ge=3, description="Number of convolutions.")
    width: int = Field(64, ge=1, description="Channels of the hidden layers.")


class DnCNN(nn.Module):
    """Conv-ReLU, (depth - 2) x conv-norm-ReLU, conv; what comes out is taken from the image."""

    multiple = 1

    def __init__(self, config: DnCNNConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Conv2d(COLOURS, config.width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(config.depth - 2):
            # The norm has a shift of its own, which a bias would only double.
            layers += [nn.Conv2d(config.width, config.width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(config.width, COLOURS, 3, padding=1)]
        self.noise = nn.Sequential(*layers)
        self._start()

    def _start(self) -> None:
        """Initial weights: the image as it is, and gains of the norms near 0, as their authors' code has them.

        With gains of 1 a stack of 20 learned nothing in 500 steps of real noise.
        """
        small = (2 / (9 * self.config.width)) ** 0.5
        for layer in self.noise:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.trunc_normal_(layer.weight, std=small, a=-_LARGEST_GAIN, b=_LARGEST_GAIN)
        zeroed(self.noise[-1])  # type: ignore[arg-type]

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoised images (B, C, H, W) of noisy ones in [0, 1]; not clamped."""
        return noisy - self.noise(noisy)
