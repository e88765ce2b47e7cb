"""DnCNN: a stack of convolutions that predicts the noise (Zhang et al., TIP 2017, arXiv 1608.03981)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pngmodel.network.layers import COLOURS, zeroed

_LARGEST_GAIN = 0.025


class DnCNNConfig(BaseModel):
    """Sizes of the network. The defaults are those of the colour model, 0.67 M parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(20, ge=3, description="Number of convolutions.")
    width: int = Field(64, ge=1, description="Channels of the hidden layers.")


class DnCNN(nn.Module):
    """Conv-ReLU, (depth - 2) x conv-norm-ReLU, conv; the output is subtracted from the image."""

    multiple = 1

    def __init__(self, config: DnCNNConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Conv2d(COLOURS, config.width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(config.depth - 2):
            # no bias, because the normalisation has a shift
            layers += [nn.Conv2d(config.width, config.width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(config.width, COLOURS, 3, padding=1)]
        self.noise = nn.Sequential(*layers)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise to the identity, with normalisation gains near 0, as in the authors' code.

        With gains of 1, a network of 20 layers did not learn in 500 steps on real noise.
        """
        small = (2 / (9 * self.config.width)) ** 0.5
        for layer in self.noise:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.trunc_normal_(layer.weight, std=small, a=-_LARGEST_GAIN, b=_LARGEST_GAIN)
        zeroed(self.noise[-1])  # type: ignore[arg-type]

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) in [0, 1]; the result is not clamped."""
        return noisy - self.noise(noisy)
