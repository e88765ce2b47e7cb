"""Objective of denoisers: a loss on crops of noisy and clean images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.network.model import Precision
from pngmodel.training.objective import Metrics, Pictures
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

LossKind = Literal["l1", "l2", "charbonnier", "psnr"]
_CHARBONNIER = 1e-3
_PSNR_FLOOR = 1e-8


class DenoiserSettings(StageSettings):
    """Settings of the training of a denoiser."""

    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of weights; running statistics of norms are not averaged.",
    )
    seed: int = Field(0, ge=0, description="Ignored; the parameter `seeds` of train_denoiser is used.")
    loss: LossKind = Field("l1", description="l1, l2, charbonnier (eps 1e-3), or psnr (minus the PSNR of each sample).")
    flips: bool = Field(True, description="Flip and rotate crops by right angles at random.")


def denoising_loss(kind: LossKind, denoised: Tensor, clean: Tensor) -> Tensor:
    """Loss of denoised images (B, C, H, W) in [0, 1]; a scalar."""
    if kind == "l1":
        return F.l1_loss(denoised, clean)
    if kind == "l2":
        return F.mse_loss(denoised, clean)
    if kind == "charbonnier":
        return ((denoised - clean).square() + _CHARBONNIER**2).sqrt().mean()
    errors = (denoised - clean).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * (errors + _PSNR_FLOOR).log().mean()


class DenoiserObjective(nn.Module):
    """Loss of a denoiser on noisy and clean crops in [0, 1]."""

    name = "denoiser"

    def __init__(self, network: nn.Module, settings: DenoiserSettings, precision: Precision) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self._settings, self._precision = settings, precision

    def forward(self, noisy: Tensor, clean: Tensor, numbers: Tensor, step: int) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch, and its PSNR in dB."""
        with self._precision.autocast():
            denoised = self.network(noisy.contiguous(memory_format=torch.channels_last))
        denoised = denoised.float()
        loss = denoising_loss(self._settings.loss, denoised, clean)
        return loss, {"psnr": _psnr(denoised.detach(), clean)}

    @torch.no_grad()
    def pictures(self, batch: PairBatch) -> Pictures:
        """Return the noise, and the residual after denoising."""
        with self._precision.autocast():
            denoised = self.network(batch.noisy.contiguous(memory_format=torch.channels_last)).float()
        rows = {"noise": batch.noisy - batch.clean, "left": denoised - batch.clean}
        return Pictures(rows, {"pictured_psnr": float(_psnr(denoised, batch.clean))})

    def compile(self) -> None:
        """Compile the network in place."""
        self.network.compile()


def _psnr(denoised: Tensor, clean: Tensor) -> Tensor:
    """Mean PSNR of the samples in dB without rounding, for training logs."""
    return -10 * (denoised - clean).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10().mean()
