"""Invertible layers of NAFlow with their log-determinants.

``forward`` maps from image to latent (training), ``inverse`` from latent to image (sampling). Log-determinants are
those of the forward Jacobian per sample, in nats. Sources: Glow, arXiv 1807.03039; SRFlow, arXiv 2006.14200.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Kernel = tuple[Tensor, Tensor]
"""Weight (C, C) and bias (C,) of one 1 x 1 convolution."""

_WEIGHT_STD = 0.05  # of convolutions in couplings (Glow)
_LOG_SCALE_FACTOR = 3.0  # of zero-initialised convolutions (Glow)
_SCALE_OFFSET = 2.0  # sigmoid(0 + 2) = 0.88: couplings start near the identity
_SMALLEST_STD = 1e-6


class ActNorm(nn.Module):
    """Scale and shift per channel, y = (x + bias) exp(log_scale), (B, C, H, W) (Glow, section 3.1).

    The first batch in training mode initialises them, so that its output has mean 0 and variance 1 per channel.
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        # Stored in the state dict, so that a loaded model is not initialised again.
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            self._initialise(x)
        return (x + self.bias[:, None, None]) * self.log_scale.exp()[:, None, None]

    @property
    def ready(self) -> bool:
        """Whether no initialisation is pending."""
        return bool(self.initialised) or not self.training

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        x = x.to(self.bias.dtype)
        mean = _over_devices(x.mean(dim=(0, 2, 3)))
        variance = _over_devices((x - mean[:, None, None]).square().mean(dim=(0, 2, 3)))
        self.bias.copy_(-mean)
        self.log_scale.copy_(-(variance.sqrt() + _SMALLEST_STD).log())
        self.initialised.fill_(True)


def _over_devices(mean: Tensor) -> Tensor:
    """Average over the devices that share a batch, so that all start with equal parameters."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mean
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()


class Mixing(nn.Module):
    """ActNorm, then an invertible 1 x 1 convolution parameterised as P L (U + diag(s)) (Glow, section 3.2).

    The log-determinant per pixel is sum(log|s|). ``normalised=False`` omits the ActNorm, as in the first layer of
    NAFlow.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, *, normalised: bool = True) -> None:
        super().__init__()
        self.norm = ActNorm(channels) if normalised else None
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        dtype = torch.get_default_dtype()
        self.register_buffer("permutation", permutation.to(dtype))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        self.log_diagonal = nn.Parameter(diagonal.abs().log().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L with unit diagonal and U with its diagonal, both (C, C)."""
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return lower, upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to the same shape; return it and the log-determinant, a scalar equal for all samples."""
        if self.norm is not None:
            x = self.norm(x)
        lower, upper = self._factors()
        per_pixel = self.log_diagonal.sum()
        if self.norm is not None:
            per_pixel = per_pixel + self.norm.log_scale.sum()
        return _one_by_one(x, (self.permutation @ lower @ upper, None)), per_pixel * (x.shape[-2] * x.shape[-1])

    def unmixing(self) -> Kernel:
        """Return the inverse as one convolution, in float64."""
        lower, upper = (factor.double() for factor in self._factors())
        weight = torch.linalg.solve_triangular(lower, self.permutation.double().T, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, weight, upper=True)
        if self.norm is None:
            return weight, weight.new_zeros(len(weight))
        return weight / self.norm.log_scale.double().exp()[:, None], -self.norm.bias.double()


class MixingRun(nn.Sequential):
    """Consecutive :class:`Mixing` layers. They are linear, so the inverse is one convolution."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logdet = x.new_zeros(())
        for layer in self:
            x, added = layer(x)
            logdet = logdet + added
        return x, logdet

    def unmixing(self) -> Kernel:
        """Return the inverse of all layers as one convolution, in the dtype of the parameters."""
        layers = [layer for layer in self if isinstance(layer, Mixing)]
        weight, bias = layers[-1].unmixing()
        for layer in reversed(layers[:-1]):
            next_weight, next_bias = layer.unmixing()
            weight, bias = next_weight @ weight, next_weight @ bias + next_bias
        dtype = layers[0].lower.dtype
        return weight.to(dtype), bias.to(dtype)

    def inverse(self, z: Tensor, kernel: Kernel) -> Tensor:
        """Invert :meth:`forward` with the result of :meth:`unmixing`."""
        return _one_by_one(z, kernel)


def _one_by_one(x: Tensor, kernel: tuple[Tensor, Tensor | None]) -> Tensor:
    """Apply a 1 x 1 convolution in the precision of its weights, without autocast.

    The input includes the noisy image itself, to which bfloat16 would add rounding noise.
    """
    weight, bias = kernel
    with torch.autocast(x.device.type, enabled=False):
        return nn.functional.conv2d(x.to(weight.dtype), weight[:, :, None, None], bias)


class ScaledZeroConv(nn.Module):
    """Zero-initialised 1 x 1 convolution with a learned output scale exp(3 s) (Glow, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return _scaled_conv(x, self.weight, self.bias, self.log_scale * _LOG_SCALE_FACTOR)


class NormalisedConv(nn.Module):
    """1 x 1 convolution without bias, then an :class:`ActNorm`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_WEIGHT_STD * torch.randn(outputs, inputs, 1, 1))
        self.norm = ActNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if not self.norm.ready:
            return self.norm(nn.functional.conv2d(x, self.weight))
        return _scaled_conv(x, self.weight, self.norm.bias, self.norm.log_scale)


def _scaled_conv(x: Tensor, weight: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """(convolution + bias) exp(log_scale), with the scale applied to the weights, which are fewer than the pixels."""
    scale = log_scale.exp()
    return nn.functional.conv2d(x, weight * scale[:, None, None, None], bias * scale)


class ScaleAndShift(nn.Module):
    """Network of a coupling: maps features (B, inputs, H, W) to scale and shift, (B, outputs, H, W) each.

    A 1 x 1 convolution, a residual block with a 3 x 3 convolution, and a zero-initialised 1 x 1 convolution.
    scale = sigmoid(s + 2) + eps is in (eps, 1 + eps).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.first = nn.Sequential(NormalisedConv(inputs, hidden), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(), NormalisedConv(hidden, hidden)
        )
        self.last = ScaledZeroConv(hidden, 2 * outputs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(features)
        shift, scale = self.last(x + self.residual(x)).chunk(2, dim=1)
        # Use at least float32, because the logarithm of the scale is summed over a whole image.
        dtype = torch.promote_types(scale.dtype, torch.float32)
        return torch.sigmoid(scale.to(dtype) + _SCALE_OFFSET) + self.eps, shift.to(dtype)


class ConditionalCoupling(nn.Module):
    """Affine injector and affine coupling, both conditioned on the clean image (SRFlow, equations 4 and 5).

    The formula x = (y + shift) scale is applied in the sampling direction, so that the bounded scale also bounds
    samples. This follows the released configuration; the papers use the other direction.
    """

    def __init__(self, channels: int, features: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.kept = channels // 2
        self.injector = ScaleAndShift(features, channels, hidden, eps)
        self.coupling = ScaleAndShift(self.kept + features, channels - self.kept, hidden, eps)

    def _coupled(self, kept: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.coupling(torch.cat([kept, features], dim=1))

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, C, H, W), given features (B, F, H, W), to y of the same shape and the log-determinant (B,)."""
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._coupled(kept, features)
        y = torch.cat([kept, changed / scale - shift], dim=1)
        logdet = -scale.log().sum(dim=(1, 2, 3))
        scale, shift = self.injector(features)
        return y / scale - shift, logdet - scale.log().sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor, features: Tensor) -> Tensor:
        """Invert :meth:`forward`."""
        scale, shift = self.injector(features)
        x = (y + shift) * scale
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._coupled(kept, features)
        return torch.cat([kept, (changed + shift) * scale], dim=1)
