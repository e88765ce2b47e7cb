"""Parameters of the flows that build prompt banks and promote models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.runtime.parameters import Cluster, Device, inline

MODEL = "Noise model: shipped, the folder or URL of a bundle, or the name of a baseline."
PAIRS = "Real pairs: shipped, or the folder or URL of a patch store or catalogue."
COMPARE = "Bundles to evaluate as further rows of the same table."


class BankParameters(BaseModel):
    """Model and references of a prompt bank."""

    model_config = ConfigDict(extra="forbid")

    references: str = Field("shipped", description=PAIRS)
    output: str = Field(description="Folder or URL of the prompt bank.")
    model: str = Field("shipped", description=MODEL)
    split: str | None = Field(None, description="Only references of this split, e.g. train.")
    camera: str | None = Field(None, description="Only references of this camera.")
    limit: int | None = Field(None, ge=1, description="Maximum number of references, evenly spread; default: all.")
    shard: int = Field(256, ge=1, description="Entries per shard; a shard is one task and one file.")
    device: Device = "cpu"
    cluster: Cluster = Field(default_factory=inline)


class PromoteParameters(BaseModel):
    """Version to promote and its evaluation record."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    version: str = Field(description="Version to promote: REGISTRY/NAME@NUMBER or REGISTRY/NAME@champion.")
    record: str = Field(description="File or URL of the evaluation record (JSON) of this version.")
    rules: str = Field(description="Thresholds to pass: a YAML file of configs/promotion/.")
    reason: str = Field("the gate passed", description="Reason for the promotion; recorded.")
    override: str | None = Field(
        None, min_length=1, description="Reason to promote although a threshold is not passed; recorded."
    )


class CatchUpParameters(BaseModel):
    """Models whose versions may lack an evaluation."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1, description="Models to check, each REGISTRY/NAME.")
