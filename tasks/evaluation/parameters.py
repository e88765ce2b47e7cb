"""Parameters of the flows that evaluate noise generators."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.models.parameters import COMPARE, MODEL, PAIRS
from tasks.runtime.parameters import Cluster, Device, Limit, inline

Protocol = Literal["A", "B", "C", "D"]
HoldOut = Literal["scene", "image", "split"]
Features = Literal["prompts", "all"]
_REFERENCE = (
    "Reference protocol: A the pair itself, B another crop of the same image, C another image of the same camera "
    "and ISO, D another camera."
)


class EvaluateParameters(BaseModel):
    """Noise generator and real pairs of an evaluation."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("shipped", description=MODEL)
    compare: list[str] = Field(default_factory=list, description=COMPARE)
    references: str = Field("shipped", description=PAIRS)
    split: str | None = Field(None, description="Only pairs of this split, e.g. validation.")
    camera: str | None = Field(None, description="Only pairs of this camera.")
    reference: Protocol = Field("A", description=_REFERENCE)
    limit: Limit = None
    seed: int = Field(0, ge=0, description="Seed of the samples and of the choice of references.")
    baselines: bool = Field(True, description="Evaluate the baselines on the same pairs.")
    device: Device = "cpu"
    output: str | None = Field(None, description="File or URL of the evaluation record (JSON).")
    report: str | None = Field(None, description="File or URL of an HTML report with pictures.")


class C2stParameters(BaseModel):
    """Noise generator, real pairs and budget of a classifier two-sample test."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("shipped", description=MODEL)
    compare: list[str] = Field(default_factory=list, description=COMPARE)
    references: str = Field("shipped", description=PAIRS)
    split: str | None = Field(None, description="Only pairs of this split.")
    camera: str | None = Field(None, description="Only pairs of this camera.")
    reference: Protocol = Field("A", description=_REFERENCE)
    hold_out: HoldOut = Field(
        "scene", description="Test data: a quarter of the scenes or images, sampled by seed, or the split `validation`."
    )
    limit: int | None = Field(96, ge=2, description="Maximum number of pairs, evenly spread.")
    steps: int = Field(250, ge=1, description="Training steps per classifier.")
    batch: int = Field(32, ge=2, multiple_of=2, description="Patches per step, half real and half generated.")
    average: Literal[1, 2, 4] = Field(
        1, description="Average over blocks of this many pixels squared before classifying."
    )
    seeds: int = Field(3, ge=1, le=100, description="Number of classifiers per generator, each with its own seed.")
    seed: int = Field(0, ge=0, description="First seed.")
    baselines: bool = Field(True, description="Evaluate the baselines with the same budget.")
    device: Device = "cpu"
    output: str | None = Field(None, description="File or URL of the record (JSON).")
    cluster: Cluster = Field(default_factory=inline)


class MetadataParameters(BaseModel):
    """Model, real pairs and budget of the camera classifiers."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        "shipped",
        description="Noise model: shipped, the folder or URL of a bundle; with features `all` also a baseline.",
    )
    references: list[str] = Field(
        min_length=1, description="Patch stores or catalogues of real pairs of several scenes."
    )
    features: Features = Field(
        "prompts",
        description="prompts: codes of the prompt blocks; all: also the curves and covariances of a reference.",
    )
    limit: int | None = Field(1000, ge=4, description="Maximum number of pairs, evenly spread.")
    side: int = Field(256, ge=64, multiple_of=8, description="Side of the centre crop of larger images, pixels.")
    least: int = Field(6, ge=2, description="Minimum number of samples per class; smaller classes are skipped.")
    steps: int = Field(600, ge=1, description="Training steps per network.")
    batch: int = Field(32, ge=2, description="Samples per step.")
    hidden: int = Field(64, ge=1, description="Hidden units; determines the parameter count of both networks.")
    seeds: int = Field(5, ge=1, le=100, description="Number of networks of each kind, each with its own test scenes.")
    seed: int = Field(0, ge=0, description="First seed.")
    device: Device = "cpu"
    output: str | None = Field(None, description="File or URL of the record (JSON).")
    report: str | None = Field(None, description="File or URL of an HTML report with confusion matrices.")
    cluster: Cluster = Field(default_factory=inline)
