"""Consistency training in the latent space and one-step sampling.

Source: iCT (Song and Dhariwal, "Improved Techniques for Training Consistency Models"), arXiv 2310.14189; EDM (Karras et
al.), arXiv 2206.00364.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_RHO = 7  # exponent of the noise schedule (EDM, eq. 5)

Preconditioning = Literal["edm", "gaussian"]
LossKind = Literal["pseudo_huber", "pseudo_huber_elementwise", "cauchy"]
Network = Callable[[Tensor, Tensor], Tensor]
"""F(scaled latent (B, C, h, w), ln(sigma)/4 (B,)) -> (B, C, h, w), with bound conditions."""


@dataclass(frozen=True)
class Schedule:
    """Noise levels sigma and their curriculum over training steps."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    s0: int = 10
    s1: int = 160
    p_mean: float = -1.1
    p_std: float = 2.0
    preconditioning: Preconditioning = "edm"

    def levels(self, step: int, total_steps: int) -> int:
        """Return the number of noise levels N(k) = min(s0 2^floor(k/K'), s1) + 1 at step k of K (iCT, section 3.4)."""
        doublings = math.log2(math.floor(self.s1 / self.s0)) + 1
        stage = max(1, math.floor(total_steps / doublings))
        return int(min(self.s0 * 2 ** (step // stage), self.s1)) + 1

    def sigmas(self, levels: int) -> Tensor:
        """Return the increasing noise levels sigma_1 = sigma_min, ..., sigma_N = sigma_max, (N,) in float64."""
        ramp = torch.linspace(0, 1, levels, dtype=torch.float64)
        low, high = self.sigma_min ** (1 / _RHO), self.sigma_max ** (1 / _RHO)
        return (low + ramp * (high - low)) ** _RHO

    def skip(self, sigma: Tensor) -> Tensor:
        """Return c_skip(sigma), which is 1 at sigma_min, so that f(x, sigma_min) = x.

        ``edm``: sd^2 / ((s - s_min)^2 + sd^2), the posterior mean of a Gaussian (iCT, appendix).
        ``gaussian``: sqrt((sd^2 + s_min^2) / (sd^2 + s^2)), the solution of the probability-flow ODE for N(0, sd^2 I),
        i.e. the exact consistency function of white Gaussian latents.
        """
        data, low = self.sigma_data, self.sigma_min
        if self.preconditioning == "edm":
            return data**2 / ((sigma - low) ** 2 + data**2)
        return ((data**2 + low**2) / (data**2 + sigma**2)).sqrt()

    def level_probabilities(self, sigmas: Tensor) -> Tensor:
        """Return p(i), i = 1..N-1: a lognormal distribution of sigma, integrated over each interval (iCT, eq. 10)."""
        z = (sigmas.log() - self.p_mean) / (math.sqrt(2) * self.p_std)
        mass = torch.erf(z[1:]) - torch.erf(z[:-1])
        return mass / mass.sum()


def denoise(network: Network, x: Tensor, sigma: Tensor, schedule: Schedule) -> Tensor:
    """Return f(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4) in float32; f(x, sigma_min) = x exactly.

    c_out = sd (s - s_min) / sqrt(s^2 + sd^2), c_in = 1 / sqrt(s^2 + sd^2). Source: consistency models, arXiv
    2303.01469, appendix C; EDM, arXiv 2206.00364, table 1.
    """
    s = sigma.float().reshape(-1, 1, 1, 1)
    data, low = schedule.sigma_data, schedule.sigma_min
    c_skip = schedule.skip(s)
    c_out = data * (s - low) / (s**2 + data**2).sqrt()
    c_in = 1 / (s**2 + data**2).sqrt()
    return c_skip * x + c_out * network(c_in * x, sigma.float().log() / 4).float()


def one_step(network: Network, noise: Tensor, schedule: Schedule) -> Tensor:
    """Sample in one step: f(sigma_max eps, sigma_max) for standard normal ``noise`` eps (B, C, h, w)."""
    sigma = torch.full((noise.shape[0],), schedule.sigma_max, device=noise.device)
    return denoise(network, schedule.sigma_max * noise, sigma, schedule)


def distance(difference: Tensor, kind: LossKind) -> Tensor:
    """Return d(u) per sample, (B,), with c = 0.00054 sqrt(dim).

    ``pseudo_huber``: sqrt(||u||^2 + c^2) - c with the norm over the whole sample (iCT, eq. 8).
    ``pseudo_huber_elementwise``: the sum of sqrt(u_i^2 + c^2) - c, a different objective.
    ``cauchy``: log(1 + ||u||^2 / (2 c^2)), which is robust to outliers (arXiv 2502.01441).
    """
    u = difference.float().flatten(1)
    c = 0.00054 * math.sqrt(u.shape[1])
    if kind == "pseudo_huber":
        return (u.square().sum(1) + c**2).sqrt() - c
    if kind == "pseudo_huber_elementwise":
        return ((u.square() + c**2).sqrt() - c).sum(1)
    return torch.log1p(u.square().sum(1) / (2 * c**2))


def consistency_loss(
    network: Network,
    latent: Tensor,
    *,
    eps: Tensor,
    level: Tensor,
    step: int,
    total_steps: int,
    schedule: Schedule,
    kind: LossKind = "pseudo_huber",
) -> Tensor:
    """Return E[d(f(x_{i+1}), sg f(x_i)) / (sigma_{i+1} - sigma_i)] for normalised latents (B, C, h, w) (iCT, eq. 5).

    The teacher is the online network with stopped gradient and the dropout mask of the student: the random state of the
    device is restored between both passes.

    Args:
        network: The network with bound conditions.
        latent: Normalised latents.
        eps: Standard normal noise of the same shape, used at both noise levels.
        level: Uniform numbers (B,) in [0, 1) that select i by the inverse of the cumulative distribution of p(i).
        step: Training step.
        total_steps: Total number of training steps.
        schedule: Noise levels.
        kind: Distance.
    """
    sigmas = schedule.sigmas(schedule.levels(step, total_steps))
    cumulated = schedule.level_probabilities(sigmas).cumsum(0)
    index = torch.searchsorted(cumulated, level.cpu().double(), right=True).clamp(max=len(cumulated) - 1)
    low, high = sigmas[index], sigmas[index + 1]
    low_d, high_d = low.to(latent), high.to(latent)
    state = _random_state(latent.device)
    student = denoise(network, latent + high_d.reshape(-1, 1, 1, 1) * eps, high_d, schedule)
    _restore(latent.device, state)
    with torch.no_grad():
        teacher = denoise(network, latent + low_d.reshape(-1, 1, 1, 1) * eps, low_d, schedule)
    return (distance(student - teacher, kind) / (high - low).to(latent)).mean()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _restore(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
