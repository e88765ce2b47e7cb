"""Typed sizes of the model: ``tiny`` trains on two CPU cores, ``paper`` has the published size."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.errors import UserError

DOWNSAMPLING = 8  # image side / latent side: three stride-2 levels
LEVELS = 4


class ModelConfig(BaseModel):
    """Everything that shapes the network; stored in the bundle's config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("custom", description="name of the preset this started from")
    channels: tuple[int, int, int, int] = Field(description="autoencoder channels per level, full size first")
    latent_channels: int = Field(192, ge=1, description="channels of the latent at 1/8 of the image side")
    latent_init: Literal["lossless", "random"] = Field(
        "lossless",
        description="lossless: latent = pixel-unshuffle(noise) + learned residual, needs 192 latent channels; "
        "random: learned from scratch, as published",
    )
    decoder_blocks: tuple[int, int, int] = Field(
        (2, 1, 0), description="residual blocks of the decoder at 1/8, 1/4, 1/2 of the side"
    )
    prompts: Literal["none", "global", "global+local"] = Field(
        "global+local", description="which prompt blocks condition the model (paper ablation)"
    )
    statistics: Literal["none", "correlation"] = Field(
        "none",
        description="correlation: the reference's correlations in space and colour are a condition of their own, "
        "beside the prompts; none: the paper",
    )
    prompt_map_size: int = Field(256, ge=8, description="side of the full-size learned prompt map, in pixels")
    correlation_size: int = Field(5, ge=3, description="rho: neighbours in a rho x rho square are correlated")
    correlation_window: int = Field(9, ge=3, description="side of the window a local correlation is taken over")
    correlation_stride: int = Field(
        1, ge=1, description="evaluate the local correlation at every n-th pixel; only its means are kept"
    )
    correlation_width: int = Field(384, ge=1, description="hidden width of the network behind the correlation maps")
    correlation_grid: int = Field(32, ge=1, description="samples kept of each row and column correlation profile")
    width: int = Field(384, description="P-DiT token width")
    depth: int = Field(8, ge=1, description="P-DiT blocks")
    heads: int = Field(6, ge=1, description="P-DiT attention heads")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in attention and MLP, same mask for teacher")
    condition: Literal["time", "attention"] = Field(
        "attention", description="condition in the time embedding only, or in Prompt Attention too"
    )
    condition_kernel: Literal[1, 3] = Field(3, description="3: the paper; 1: the authors' release")
    tile: int = Field(256, ge=16, description="image side the model is run at; larger images are tiled")
    tile_overlap: int = Field(32, ge=0, description="pixels shared by neighbouring tiles")
    whitening: Literal["none", "moments", "quantiles"] = Field(
        "none",
        description="standardise noise by the reference before the model sees it: none (paper), mean and std "
        "against intensity, or the whole distribution against intensity",
    )
    decorrelation: Literal["none", "spectrum", "polyphase"] = Field(
        "none",
        description="spectrum: also divide whitened noise by the reference's joint spectrum in space and colour, so "
        "that the model sees noise without second-order structure and learns what is beyond it; polyphase: by the "
        "spectrum of the four places of a 2 x 2 pixel pattern, which demosaicing leaves different; none: the paper",
    )
    preconditioning: Literal["edm", "gaussian"] = Field(
        "edm",
        description="what the network corrects. edm: the published c_skip; gaussian: the exact consistency function of "
        "white Gaussian latents, so that an untrained model already draws noise of the right strength",
    )
    calibration: Literal["none", "moments", "colours", "spectrum"] = Field(
        "none",
        description="moments: give each generated (whitened) noise channel mean 0 and std 1; colours: mean 0 and the "
        "reference's covariance between colours; spectrum: before that carry the covariances of a draw for the "
        "reference's clean image, in space and colour, to the reference's",
    )
    sigma_data: float = Field(0.5, gt=0, description="std the latent is normalised to")
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.latent_init == "lossless" and self.latent_channels != 3 * DOWNSAMPLING**2:
            raise ValueError("latent_init lossless needs latent_channels 192 (3 colours x 8 x 8)")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} must divide by heads {self.heads} and by 4")
        if self.tile % DOWNSAMPLING or self.tile_overlap % DOWNSAMPLING or self.tile_overlap * 2 > self.tile:
            raise ValueError("tile and tile_overlap must be multiples of 8, overlap at most half a tile")
        if self.correlation_size % 2 == 0 or self.correlation_window % 2 == 0:
            raise ValueError("correlation_size and correlation_window must be odd")
        if self.calibration != "none" and self.whitening == "none":
            raise ValueError("calibration needs whitening: unwhitened noise has no unit to be calibrated to")
        if self.decorrelation != "none" and self.whitening == "none":
            raise ValueError("decorrelation needs whitening: only noise of one strength has one spectrum")
        if self.decorrelation != "none" and self.latent_init != "lossless":
            raise ValueError("decorrelation needs latent_init lossless: prompts and latent then read different noise")
        return self


GENERATION_ONLY = frozenset({"calibration", "tile", "tile_overlap"})
"""Fields that change what is drawn from the weights but not the weights."""

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
"""What a training of an hour on two CPU cores needs beside the paper (docs/design.md)."""

PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(preset="tiny", channels=(8, 8, 16, 32), width=128, depth=4, heads=4, **_OURS),
    "small": ModelConfig(preset="small", channels=(8, 16, 32, 64), width=192, depth=6, heads=6, **_OURS),
    "paper": ModelConfig(preset="paper", channels=(48, 48, 96, 192), latent_init="random", width=384, depth=8, heads=6),
}


def preset(name: str) -> ModelConfig:
    """Return the preset called ``name``; UserError lists the names otherwise."""
    if name not in PRESETS:
        raise UserError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
