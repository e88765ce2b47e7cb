"""Model configuration and presets: ``tiny`` and ``small`` can be trained on two CPU cores; ``paper`` is published."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.errors import UserError

DOWNSAMPLING = 8  # ratio of image side and latent side
LEVELS = 4


class ModelConfig(BaseModel):
    """Configuration of the noise model; stored in config.json of the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("custom", description="name of the original preset")
    channels: tuple[int, int, int, int] = Field(
        description="channels of the autoencoder per level, starting at full resolution"
    )
    latent_channels: int = Field(192, ge=1, description="channels of the latent at 1/8 of the image side")
    latent_init: Literal["lossless", "random"] = Field(
        "lossless",
        description="lossless: latent = pixel-unshuffle(noise) + learned residual, requires 192 latent channels; "
        "random: learned from scratch, as published",
    )
    decoder_blocks: tuple[int, int, int] = Field(
        (2, 1, 0), description="residual blocks of the decoder at 1/8, 1/4, 1/2 of the side"
    )
    prompts: Literal["none", "global", "global+local"] = Field(
        "global+local", description="prompt blocks that condition the model (ablation of the paper)"
    )
    statistics: Literal["none", "correlation"] = Field(
        "none",
        description="correlation: also condition the model on the correlations of the reference in space and colour; "
        "none: as in the paper",
    )
    prompt_map_size: int = Field(256, ge=8, description="side of the learned prompt map at full resolution, pixels")
    correlation_size: int = Field(5, ge=3, description="rho: side of the square of neighbours for local correlations")
    correlation_window: int = Field(9, ge=3, description="side of the window of local correlations, pixels")
    correlation_stride: int = Field(
        1, ge=1, description="compute local correlations at every n-th pixel; only their means are used"
    )
    correlation_width: int = Field(384, ge=1, description="hidden channels of the network on local correlations")
    correlation_grid: int = Field(32, ge=1, description="samples per row and column profile of local correlations")
    width: int = Field(384, description="token width of the P-DiT")
    depth: int = Field(8, ge=1, description="number of P-DiT blocks")
    heads: int = Field(6, ge=1, description="attention heads of the P-DiT")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in attention and MLP; equal mask for the teacher")
    condition: Literal["time", "attention"] = Field(
        "attention", description="time: condition only the time embedding; attention: Prompt Attention as well"
    )
    condition_kernel: Literal[1, 3] = Field(
        3, description="kernel size of the projections of conditions; 3: paper, 1: authors' release"
    )
    tile: int = Field(256, ge=16, description="side of the tiles of larger images, pixels")
    tile_overlap: int = Field(32, ge=0, description="overlap of adjacent tiles, pixels")
    whitening: Literal["none", "moments", "quantiles"] = Field(
        "none",
        description="normalise noise by the reference: none (paper), moments (mean and std given the intensity), or "
        "quantiles (the whole distribution given the intensity)",
    )
    decorrelation: Literal["none", "spectrum", "polyphase"] = Field(
        "none",
        description="remove second-order structure from whitened noise. spectrum: divide by the joint spectrum of the "
        "reference in space and colour; polyphase: by the spectrum of the four phases of the 2 x 2 Bayer pattern, "
        "which differ after demosaicing; none: as in the paper",
    )
    preconditioning: Literal["edm", "gaussian"] = Field(
        "edm",
        description="skip connection of the consistency function. edm: the published c_skip; gaussian: the exact "
        "consistency function of white Gaussian latents, so that an untrained model has the correct noise level",
    )
    calibration: Literal["none", "moments", "colours", "spectrum"] = Field(
        "none",
        description="calibration of generated whitened noise. moments: mean 0 and std 1 per channel; colours: mean 0 "
        "and the covariance of the reference between channels; spectrum: also its covariances in space, by a filter "
        "computed from samples for the clean image of the reference",
    )
    sigma_data: float = Field(0.5, gt=0, description="std of the normalised latent")
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.latent_init == "lossless" and self.latent_channels != 3 * DOWNSAMPLING**2:
            raise ValueError(
                f"latent_channels is {self.latent_channels}, but latent_init 'lossless' requires 192 (3 x 8 x 8)"
            )
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must be divisible by heads {self.heads} and by 4")
        if self.tile % DOWNSAMPLING or self.tile_overlap % DOWNSAMPLING or self.tile_overlap * 2 > self.tile:
            raise ValueError(
                f"tile {self.tile} and tile_overlap {self.tile_overlap} must be multiples of 8, and the overlap at "
                "most half a tile"
            )
        if self.correlation_size % 2 == 0 or self.correlation_window % 2 == 0:
            raise ValueError(
                f"correlation_size {self.correlation_size} and correlation_window {self.correlation_window} must be odd"
            )
        if self.calibration != "none" and self.whitening == "none":
            raise ValueError(f"calibration {self.calibration!r} requires whitening; set whitening to 'quantiles'")
        if self.decorrelation != "none" and self.whitening == "none":
            raise ValueError(f"decorrelation {self.decorrelation!r} requires whitening; set whitening to 'quantiles'")
        if self.decorrelation != "none" and self.latent_init != "lossless":
            raise ValueError(f"decorrelation {self.decorrelation!r} requires latent_init 'lossless'")
        return self


GENERATION_ONLY = frozenset({"calibration", "tile", "tile_overlap"})
"""Fields that affect generation but not the weights."""

_OURS: dict[str, Any] = {
    "decoder_blocks": (1, 0, 0),
    "correlation_stride": 4,
    "prompt_map_size": 64,
    "correlation_width": 32,
    "correlation_grid": 8,
    "dropout": 0.0,
    "condition_kernel": 1,
    "tile": 64,
    "tile_overlap": 16,
    "statistics": "correlation",
    "whitening": "quantiles",
    "decorrelation": "polyphase",
    "preconditioning": "gaussian",
    "calibration": "spectrum",
}
"""Differences from the paper for trainings of about an hour on two CPU cores (docs/design.md)."""

PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(preset="tiny", channels=(8, 8, 16, 32), width=128, depth=4, heads=4, **_OURS),
    "small": ModelConfig(preset="small", channels=(8, 16, 32, 64), width=192, depth=6, heads=6, **_OURS),
    "paper": ModelConfig(preset="paper", channels=(48, 48, 96, 192), latent_init="random", width=384, depth=8, heads=6),
}


def preset(name: str) -> ModelConfig:
    """Return the preset ``name``.

    Raises:
        UserError: There is no such preset; lists the names.
    """
    if name not in PRESETS:
        raise UserError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
