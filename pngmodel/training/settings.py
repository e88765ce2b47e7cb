"""Training settings: keys of the YAML files in configs/models/ and configs/denoisers/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.network.consistency import LossKind

Beta = Annotated[float, Field(ge=0, lt=1)]
Range = Annotated[tuple[float, float], Field(description="minimum and maximum")]


class StageSettings(BaseModel):
    """Settings of one training stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="Total number of optimiser steps; a rerun continues up to here.")
    batch: int = Field(ge=1, description="Samples per step over all devices and gradient accumulation steps.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Gradient accumulation steps.")
    crop: int = Field(ge=16, multiple_of=8, description="Side of the training crops, pixels.")
    optimiser: Literal["adam", "adamw", "radam"] = Field("radam", description="Optimiser of torch.optim.")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="Decay rates of the means of gradients and squared gradients."
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of the optimiser.")
    learning_rate: float = Field(2e-4, gt=0, description="Learning rate at the start.")
    final_learning_rate: float | None = Field(
        None, gt=0, description="Learning rate at the end of a cosine schedule; null: constant."
    )
    gradient_clip: float | None = Field(0.1, gt=0, description="Maximum norm of the gradient; null: no limit.")
    ema: float = Field(0.9999, ge=0, lt=1, description="Decay of the moving average of weights, with warm-up.")
    seed: int = Field(
        0,
        ge=0,
        description="Random seed of the stage. For the noise model, the seed of stage 1 also initialises the "
        "weights, that of stage 2 also selects the samples of both stages.",
    )
    compile: bool = Field(False, description="Compile the network with torch.compile; useful on CUDA.")
    checkpoint_every: int = Field(250, ge=1, description="Steps between resumable checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="Number of latest checkpoints to keep.")
    log_every: int = Field(25, ge=1, description="Steps between rows of metrics.jsonl and points in TensorBoard.")
    pictures_every: int = Field(
        500, ge=1, description="Steps between pictures of real and generated noise in TensorBoard."
    )


class PDiTSettings(StageSettings):
    """Settings of stage 2, the P-DiT."""

    loss: LossKind = Field("pseudo_huber", description="Distance of the consistency loss.")
    train_prompts: bool = Field(
        False,
        description="Train the prompt blocks in this stage, too; required with a lossless latent, whose "
        "reconstruction does not train them. As published: false.",
    )
    reference: Literal["own", "same_image"] = Field(
        "own", description="Source of the prompts: the noise of the crop itself (paper), or another crop of its image."
    )
    reference_crop: int = Field(128, ge=16, multiple_of=8, description="Side of the other crop, pixels.")
    condition_noise: float = Field(
        5 / 255, ge=0, description="Standard deviation of the noise on the clean condition, for images in [0, 1]."
    )


class Randomisation(BaseModel):
    """Domain randomisation: random changes of real pairs that simulate other cameras."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(1.0, ge=0, le=1, description="Share of the regions to change, 0 to 1.")
    resample: Range = Field((1.0, 1.0), description="Range of the factor by which both images are resampled.")
    gain: Range = Field((1.0, 1.0), description="Range of the factor by which both images are multiplied.")
    gamma: Range = Field((1.0, 1.0), description="Range of the exponent of both images.")
    jpeg: float = Field(
        0.0, ge=0, le=1, description="Share of the changed regions whose noisy side is saved as JPEG, 0 to 1."
    )
    jpeg_quality: tuple[int, int] = Field((70, 98), description="Range of the JPEG quality.")

    @model_validator(mode="after")
    def _ranges(self) -> Randomisation:
        for name in ("resample", "gain", "gamma", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: ({low}, {high}) is not a range of positive numbers; use 0 < min <= max")
        if self.jpeg_quality[1] > 100:
            raise ValueError(f"jpeg_quality: {self.jpeg_quality[1]} is above 100; use values from 1 to 100")
        return self


class DataSettings(BaseModel):
    """Sampling and augmentation of the training data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Share of the samples per dataset name; default: by number of patches."
    )
    region: int = Field(
        128, ge=16, multiple_of=8, description="Side of the region of a patch that is whitened at a time, pixels."
    )
    crops: int = Field(8, ge=1, description="Number of crops per whitened region.")
    mix: int = Field(16, ge=1, description="Number of regions whose crops are shuffled together.")
    flips: bool = Field(True, description="Flip and rotate regions by right angles at random.")
    randomise: Randomisation | None = Field(None, description="Domain randomisation; null: none.")
