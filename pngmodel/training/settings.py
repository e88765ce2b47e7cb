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

    steps: int = Field(ge=1, description="total number of optimiser steps, including those of resumed runs")
    batch: int = Field(ge=1, description="samples per step, over all devices and gradient accumulation steps")
    gradient_accumulation_steps: int = Field(1, ge=1, description="gradient accumulation steps")
    crop: int = Field(ge=16, multiple_of=8, description="side of the training crops, pixels")
    optimiser: Literal["adam", "adamw", "radam"] = Field("radam", description="optimiser of torch.optim")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay rates of the first and second moment")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of the optimiser")
    learning_rate: float = Field(2e-4, gt=0, description="initial learning rate")
    final_learning_rate: float | None = Field(
        None, gt=0, description="final learning rate of a cosine decay; default: constant learning rate"
    )
    gradient_clip: float | None = Field(0.1, gt=0, description="maximum norm of the gradient; null: no clipping")
    ema: float = Field(
        0.9999, ge=0, lt=1, description="decay of the exponential moving average of the weights, with warm-up"
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of all random numbers of the stage. For noise models, the seed of stage 1 is also that of "
        "the initial weights, and the seed of stage 2 that of the samples of both stages",
    )
    compile: bool = Field(False, description="use torch.compile; faster on CUDA")
    checkpoint_every: int = Field(250, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    log_every: int = Field(25, ge=1, description="steps between entries in metrics.jsonl and TensorBoard")
    pictures_every: int = Field(
        500, ge=1, description="steps between images of real and generated noise in TensorBoard"
    )


class PDiTSettings(StageSettings):
    """Settings of stage 2, the P-DiT."""

    loss: LossKind = Field("pseudo_huber", description="distance of the consistency loss")
    train_prompts: bool = Field(
        False,
        description="also train the prompt blocks in this stage (not in the paper); required with a lossless latent, "
        "because its reconstruction does not depend on them",
    )
    reference: Literal["own", "same_image"] = Field(
        "own", description="prompts from the noise of the crop itself (paper), or of another crop of its image"
    )
    reference_crop: int = Field(128, ge=16, multiple_of=8, description="side of the other crop, pixels")
    condition_noise: float = Field(
        5 / 255, ge=0, description="std of the noise added to the clean condition, for images in [0, 1]"
    )


class Randomisation(BaseModel):
    """Domain randomisation: random changes of real pairs that simulate other cameras."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(1.0, ge=0, le=1, description="share of the regions that are randomised")
    resample: Range = Field((1.0, 1.0), description="range of the resampling factor of both images")
    gain: Range = Field((1.0, 1.0), description="range of the gain of both images")
    gamma: Range = Field((1.0, 1.0), description="range of the gamma exponent of both images")
    jpeg: float = Field(0.0, ge=0, le=1, description="share of randomised regions whose noisy image is JPEG compressed")
    jpeg_quality: tuple[int, int] = Field((70, 98), description="range of the JPEG quality")

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
        default_factory=dict, description="sampling weight by dataset name; default: number of patches"
    )
    region: int = Field(128, ge=16, multiple_of=8, description="side of the regions that are whitened, pixels")
    crops: int = Field(8, ge=1, description="samples per region; whitening takes longer than cropping")
    mix: int = Field(16, ge=1, description="number of regions whose samples are shuffled together")
    flips: bool = Field(True, description="random flips and rotations by right angles")
    randomise: Randomisation | None = Field(None, description="domain randomisation; default: none")
