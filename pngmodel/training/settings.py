"""How a stage is trained; every field can stand in a YAML file under configs/models/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pngmodel.network.consistency import LossKind

Beta = Annotated[float, Field(ge=0, lt=1)]
Range = Annotated[tuple[float, float], Field(description="lowest and highest value")]


class StageSettings(BaseModel):
    """Settings of one stage. The defaults of optimiser fields are set per stage in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="optimiser steps in all; a rerun continues up to here")
    batch: int = Field(ge=1, description="samples per step, over all devices and accumulated parts")
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="parts that a device works off its share of a batch in"
    )
    crop: int = Field(ge=16, multiple_of=8, description="side of the training crops in pixels")
    optimiser: Literal["adam", "adamw", "radam"] = Field("radam", description="which of torch's optimisers")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay of the mean and the square of gradients")
    weight_decay: float = Field(0.0, ge=0, description="that optimiser's weight decay")
    learning_rate: float = Field(2e-4, gt=0, description="at the start; see final_learning_rate")
    final_learning_rate: float | None = Field(None, gt=0, description="cosine to this at the end; none = constant")
    gradient_clip: float | None = Field(0.1, gt=0, description="largest norm of the whole gradient; none: any")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the weights' moving average, warmed up")
    seed: int = Field(
        0,
        ge=0,
        description="of everything drawn in the stage. Of the noise model, stage 1's is also that of the first "
        "weights, stage 2's that of the samples of both",
    )
    compile: bool = Field(False, description="torch.compile the network; pays on CUDA")
    checkpoint_every: int = Field(250, ge=1, description="steps between resumable checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that stay")
    log_every: int = Field(25, ge=1, description="steps between rows of metrics.jsonl and points in TensorBoard")
    pictures_every: int = Field(500, ge=1, description="steps between pictures of real and drawn noise in TensorBoard")


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
    reference_crop: int = Field(128, ge=16, multiple_of=8, description="side of that other crop")
    condition_noise: float = Field(5 / 255, ge=0, description="std of the noise on the clean condition, in [0, 1]")


class Randomisation(BaseModel):
    """Domain randomisation: real pairs changed together into pairs that other cameras might have made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(1.0, ge=0, le=1, description="share of the regions that are changed; the rest stays as it is")
    resample: Range = Field((1.0, 1.0), description="both images resampled by a factor from this range")
    gain: Range = Field((1.0, 1.0), description="both images times a factor from this range")
    gamma: Range = Field((1.0, 1.0), description="both images to a power from this range")
    jpeg: float = Field(0.0, ge=0, le=1, description="share of changed regions whose noisy side is saved as JPEG")
    jpeg_quality: tuple[int, int] = Field((70, 98), description="qualities of those")

    @model_validator(mode="after")
    def _ranges(self) -> Randomisation:
        for name in ("resample", "gain", "gamma", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: ({low}, {high}) is no range of positive numbers")
        if self.jpeg_quality[1] > 100:
            raise ValueError(f"jpeg_quality: {self.jpeg_quality[1]} is above 100")
        return self


class DataSettings(BaseModel):
    """What the training samples are made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="share of draws per dataset name; default: by number of patches"
    )
    region: int = Field(128, ge=16, multiple_of=8, description="side of the part of a patch that is whitened at a time")
    crops: int = Field(8, ge=1, description="samples cut from one region: whitening costs more than cutting")
    mix: int = Field(16, ge=1, description="regions whose samples are shuffled together")
    flips: bool = Field(True, description="regions are mirrored and turned by right angles at random")
    randomise: Randomisation | None = Field(None, description="domain randomisation; none: pairs as they are")
