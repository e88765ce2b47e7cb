"""The invertible layers of NAFlow, each with its log-determinant.

``forward`` goes from image to latent, as in training; ``inverse`` goes back, as in sampling. A log-determinant is that
of the forward Jacobian, one number per sample, in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Kernel = tuple[Tensor, Tensor]
"""Weight (C, C) and bias (C,) of one 1 x 1 convolution."""

_WEIGHT_STD = 0.05  # of the convolutions inside a coupling (Glow)
_LOG_SCALE_FACTOR = 3.0  # of a zero-initialised convolution's output (Glow)
_OPENING = 2.0  # sigmoid(0 + 2) = .88: couplings start near the identity
_SMALLEST_STD = 1e-6


class ActNorm(nn.Module):
    """Scale and shift of every channel, y = (x + bias) exp(log_scale), (B, C, H, W) (Glow, section 3.1).

    The first batch in training mode sets them so that its channels leave with mean 0 and variance 1.
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        # In the state dict: a loaded model must not be set anew by its first batch.
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            self._initialise(x)
        return (x + self.bias[:, None, None]) * self.log_scale.exp()[:, None, None]

    @property
    def ready(self) -> bool:
        """Whether the scale and shift are what they stay as: learned, or kept by a model that is not trained."""
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
    """Mean over the devices that share a batch in equal parts: they must start from equal parameters."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mean
    torch.distributed.all_reduce(mean)
    return mean / torch.distributed.get_world_size()


class Mixing(nn.Module):
    """ActNorm, then an invertible 1 x 1 convolution whose matrix is kept as P L (U + diag(s)) (Glow, section 3.2).

    The log-determinant per pixel is then sum(log|s|) without a decomposition. ``normalised`` = False leaves the ActNorm
    out, as NAFlow does in the very first layer.
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
        """L with its unit diagonal, and U with its own, both (C, C)."""
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return lower, upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the same shape, and the log-determinant as a number: the same for all samples."""
        if self.norm is not None:
            x = self.norm(x)
        lower, upper = self._factors()
        per_pixel = self.log_diagonal.sum()
        if self.norm is not None:
            per_pixel = per_pixel + self.norm.log_scale.sum()
        return _one_by_one(x, (self.permutation @ lower @ upper, None)), per_pixel * (x.shape[-2] * x.shape[-1])

    def unmixing(self) -> Kernel:
        """The inverse as one convolution, in float64."""
        lower, upper = (factor.double() for factor in self._factors())
        weight = torch.linalg.solve_triangular(lower, self.permutation.double().T, upper=False, unitriangular=True)
        weight = torch.linalg.solve_triangular(upper, weight, upper=True)
        if self.norm is None:
            return weight, weight.new_zeros(len(weight))
        return weight / self.norm.log_scale.double().exp()[:, None], -self.norm.bias.double()


class MixingRun(nn.Sequential):
    """Consecutive :class:`Mixing` layers. All of it is linear, so that its inverse is one convolution."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logdet = x.new_zeros(())
        for layer in self:
            x, added = layer(x)
            logdet = logdet + added
        return x, logdet

    def unmixing(self) -> Kernel:
        """The inverse of the whole run as one convolution, in the parameters' dtype."""
        layers = [layer for layer in self if isinstance(layer, Mixing)]
        weight, bias = layers[-1].unmixing()
        for layer in reversed(layers[:-1]):
            next_weight, next_bias = layer.unmixing()
            weight, bias = next_weight @ weight, next_weight @ bias + next_bias
        dtype = layers[0].lower.dtype
        return weight.to(dtype), bias.to(dtype)

    def inverse(self, z: Tensor, kernel: Kernel) -> Tensor:
        """Undo :meth:`forward` with what :meth:`unmixing` returned."""
        return _one_by_one(z, kernel)


def _one_by_one(x: Tensor, kernel: tuple[Tensor, Tensor | None]) -> Tensor:
    """A 1 x 1 convolution in the precision of its weights, whatever autocast says.

    The noisy image itself passes here: eight bits of mantissa would add noise of their own.
    """
    weight, bias = kernel
    with torch.autocast(x.device.type, enabled=False):
        return nn.functional.conv2d(x.to(weight.dtype), weight[:, :, None, None], bias)


class ScaledZeroConv(nn.Module):
    """1 x 1 convolution that starts at zero and has a learned output scale exp(3 s) (Glow, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return _scaled_conv(x, self.weight, self.bias, self.log_scale * _LOG_SCALE_FACTOR)


class NormalisedConv(nn.Module):
    """1 x 1 convolution without bias, then an :class:`ActNorm`, which has one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_WEIGHT_STD * torch.randn(outputs, inputs, 1, 1))
        self.norm = ActNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if not self.norm.ready:
            return self.norm(nn.functional.conv2d(x, self.weight))
        return _scaled_conv(x, self.weight, self.norm.bias, self.norm.log_scale)


def _scaled_conv(x: Tensor, weight: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """(convolution + bias) exp(log_scale), with the scale put on the weights: there are fewer of them than pixels."""
    scale = log_scale.exp()
    return nn.functional.conv2d(x, weight * scale[:, None, None, None], bias * scale)


class ScaleAndShift(nn.Module):
    """The network of a coupling: features (B, inputs, H, W) -> scale and shift, (B, outputs, H, W) each.

    A 1 x 1 layer, one residual layer whose 3 x 3 convolution is all that looks beyond a pixel, and a 1 x 1 layer at
    zero. scale = sigmoid(s + 2) + eps lies in (eps, 1 + eps).
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
        # Out of the precision of the convolutions: the logarithm of the scale is summed over a whole image.
        dtype = torch.promote_types(scale.dtype, torch.float32)
        return torch.sigmoid(scale.to(dtype) + _OPENING) + self.eps, shift.to(dtype)


class ConditionalCoupling(nn.Module):
    """Affine injector and affine coupling, both conditioned on the clean image (SRFlow, equations 4 and 5).

    They are applied in sampling direction, x = (y + shift) scale, so that training divides: the scale is bounded, and
    so is then what a sample can become (the released configuration says so; the papers have it the other way).
    """

    def __init__(self, channels: int, features: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.kept = channels // 2
        self.injector = ScaleAndShift(features, channels, hidden, eps)
        self.coupling = ScaleAndShift(self.kept + features, channels - self.kept, hidden, eps)

    def _coupled(self, kept: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.coupling(torch.cat([kept, features], dim=1))

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W), features (B, F, H, W) -> y like x and the log-determinant (B,)."""
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._coupled(kept, features)
        y = torch.cat([kept, changed / scale - shift], dim=1)
        logdet = -scale.log().sum(dim=(1, 2, 3))
        scale, shift = self.injector(features)
        return y / scale - shift, logdet - scale.log().sum(dim=(1, 2, 3))

    def inverse(self, y: Tensor, features: Tensor) -> Tensor:
        """Undo :meth:`forward`."""
        scale, shift = self.injector(features)
        x = (y + shift) * scale
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        scale, shift = self._coupled(kept, features)
        return torch.cat([kept, (changed + shift) * scale], dim=1)
