"""How a stage is trained; every field can stand in a YAML file under configs/models/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pngmodel.consistency import LossKind


class StageSettings(BaseModel):
    """Settings of one stage. The defaults of optimiser fields are set per stage in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="optimiser steps in all; a rerun continues up to here")
    batch: int = Field(ge=1, description="samples per step")
    crop: int = Field(ge=16, description="side of the training crops in pixels, a multiple of 8")
    optimiser: Literal["adam", "radam"] = Field("radam", description="adam uses betas .5, .9 (PAE, paper)")
    learning_rate: float = Field(2e-4, gt=0)
    final_learning_rate: float | None = Field(None, gt=0, description="cosine to this at the end; none = constant")
    gradient_clip: float = Field(0.1, gt=0, description="largest norm of the whole gradient")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the weights' moving average, warmed up")
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(250, ge=1, description="steps between resumable checkpoints")
    log_every: int = Field(25, ge=1, description="steps between rows of metrics.jsonl")


class PDiTSettings(StageSettings):
    """Stage 2 beside the optimiser."""

    loss: LossKind = Field("pseudo_huber", description="distance of the consistency loss")
    train_prompts: bool = Field(
        False,
        description="also train the prompt blocks in this stage; needed with a lossless latent, whose "
        "reconstruction teaches them nothing. Off is the paper",
    )
    reference: Literal["own", "same_image"] = Field(
        "own", description="prompts from the crop's own noise (paper) or from another crop of its image"
    )
    reference_crop: int = Field(128, ge=16, description="side of that other crop")
    condition_noise: float = Field(5 / 255, ge=0, description="std of the noise on the clean condition, in [0, 1]")


class DataSettings(BaseModel):
    """What the training pairs are made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,), min_length=1, description="both images of each pair are also used resampled by these factors"
    )
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="share of draws per dataset name; default: by number of patches"
    )
