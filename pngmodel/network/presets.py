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

    preset: str = Field("custom", description="Name of the preset that this configuration started from.")
    channels: tuple[int, int, int, int] = Field(description="Channels of the autoencoder per level, full size first.")
    latent_channels: int = Field(192, ge=1, description="Channels of the latent at 1/8 of the image side.")
    latent_init: Literal["lossless", "random"] = Field(
        "lossless",
        description="lossless: the latent is pixel-unshuffled noise plus a learned residual, requires 192 latent "
        "channels; random: learned from scratch, as published.",
    )
    decoder_blocks: tuple[int, int, int] = Field(
        (2, 1, 0), description="Residual blocks of the decoder at 1/8, 1/4 and 1/2 of the image side."
    )
    prompts: Literal["none", "global", "global+local"] = Field(
        "global+local", description="Prompt blocks that condition the model (ablation of the paper)."
    )
    statistics: Literal["none", "correlation"] = Field(
        "none",
        description="correlation: also condition on the spatial and colour correlations of the reference; none: "
        "as published.",
    )
    prompt_map_size: int = Field(256, ge=8, description="Side of the learned prompt map at full size, pixels.")
    correlation_size: int = Field(
        5, ge=3, description="Neighbours within a square of this side are correlated, pixels."
    )
    correlation_window: int = Field(9, ge=3, description="Side of the window of a local correlation, pixels.")
    correlation_stride: int = Field(
        1, ge=1, description="Step between local correlations, pixels; only their means are kept."
    )
    correlation_width: int = Field(384, ge=1, description="Hidden width of the network behind the correlation maps.")
    correlation_grid: int = Field(
        32, ge=1, description="Number of values kept of each row and column correlation profile."
    )
    width: int = Field(384, description="Token width of the P-DiT.")
    depth: int = Field(8, ge=1, description="Number of P-DiT blocks.")
    heads: int = Field(6, ge=1, description="Number of attention heads of the P-DiT.")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Dropout rate in attention and MLP; the teacher uses the same mask."
    )
    condition: Literal["time", "attention"] = Field(
        "attention", description="Where the condition enters: the time embedding only, or Prompt Attention, too."
    )
    condition_kernel: Literal[1, 3] = Field(
        3, description="Kernel size of the condition: 3 as in the paper, 1 as in the release of its authors."
    )
    tile: int = Field(256, ge=16, description="Side of the tiles that images are processed in, pixels.")
    tile_overlap: int = Field(32, ge=0, description="Overlap of neighbouring tiles, pixels.")
    whitening: Literal["none", "moments", "quantiles"] = Field(
        "none",
        description="Standardise noise by the reference: none (paper), mean and standard deviation by intensity, "
        "or the whole distribution by intensity.",
    )
    decorrelation: Literal["none", "spectrum", "polyphase"] = Field(
        "none",
        description="spectrum: also divide whitened noise by the joint spatial and colour spectrum of the "
        "reference; polyphase: by one spectrum per phase of a 2 x 2 pixel pattern, as demosaicing "
        "produces; none: as published.",
    )
    preconditioning: Literal["edm", "gaussian"] = Field(
        "edm",
        description="edm: the published c_skip; gaussian: the exact consistency function of white Gaussian "
        "latents, so that an untrained model samples noise of the right strength.",
    )
    calibration: Literal["none", "moments", "colours", "spectrum"] = Field(
        "none",
        description="moments: mean 0 and standard deviation 1 of each generated whitened noise channel; colours: "
        "mean 0 and the covariance of the reference between colours; spectrum: also match the spatial"
        " and colour covariances of the reference.",
    )
    sigma_data: float = Field(0.5, gt=0, description="Standard deviation that the latent is normalised to.")
    sigma_min: float = Field(0.002, gt=0, description="Smallest noise standard deviation of the consistency training.")
    sigma_max: float = Field(
        80.0, gt=0, description="Largest noise standard deviation of the consistency training; sampling starts from it."
    )

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
