"""Parameters of the flows that read datasets and cut patches."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.runtime.parameters import Cluster, Parts, inline, local


class IngestSettings(BaseModel):
    """Validation split, licence and limits of a dataset."""

    model_config = ConfigDict(extra="forbid")

    validation_scenes: list[str] = Field(
        default_factory=list, description="Names of the scenes to keep out of training."
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the pairs to keep out of training, in whole scenes chosen by name; 0 to 1.",
    )
    licence: str | None = Field(None, description="Licence of the images if the dataset layout does not state it.")
    data_range: float | None = Field(
        None,
        gt=0,
        description="Value of float images that stands for white; default: the smallest usual one that fits.",
    )
    max_shift: float = Field(2.0, ge=0, description="Maximum misalignment of noisy and clean images, pixels.")
    max_rejected: float = Field(
        1.0, ge=0, le=1, description="Fail if a larger share of the pairs is rejected, 0 to 1; 1: never."
    )


class IngestParameters(IngestSettings):
    """Dataset to read and catalogue to write."""

    source: str = Field(
        description="Dataset as its owners distribute it: a folder, .zip or .tar, or a URL of one (s3://)."
    )
    adapter: str = Field(
        description="Layout of the dataset: sidd-medium, sidd-small, sidd-validation, sidd-benchmark, sidd-plus, "
        "polyu, nam, cc15, dnd, folders, tiff, clean, or a YAML file of configs/datasets/."
    )
    output: str = Field(description="Folder or URL of the catalogue.")
    cluster: Cluster = Field(default_factory=inline)


class Geometry(BaseModel):
    """Size and stride of patches, or the name of a preset."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = Field(
        None,
        description="sidd-512 (size 512, stride 384) or sidd-256 (size 256, no overlap), instead of size and stride.",
    )
    size: int | None = Field(None, ge=16, le=8192, description="Side of the square patches, pixels; default: 256.")
    stride: int | None = Field(None, ge=1, description="Step between patches, pixels; default: the size (no overlap).")


class Selection(BaseModel):
    """Images of a catalogue that are cut; by default all."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["uint8", "uint16", "float32"] | None = Field(None, description="Only images of this data type.")
    channels: Literal[1, 3] | None = Field(None, description="Only images with this number of channels.")
    split: str | None = Field(None, description="Only images of this split, e.g. train.")
    camera: str | None = Field(None, description="Only images of this camera, e.g. S6.")


class PatchParameters(Geometry, Selection):
    """Catalogue to cut and patch store to write."""

    catalogue: str = Field(description="Folder or URL written by `pngnoise ingest`.")
    output: str = Field(description="Folder or URL of the patch store.")
    shard: int = Field(64, ge=1, description="Patches per shard; a shard is one object of every array.")
    parts: Parts = None
    cluster: Cluster = Field(default_factory=local)
