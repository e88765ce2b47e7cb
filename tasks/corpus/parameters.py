"""Parameters of the flows that make, check and export corpora."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from tasks.models.parameters import MODEL
from tasks.runtime.parameters import Cluster, Device, Parts, Weights, inline, local

Mode = Literal["pairs", "noisy", "recipe"]
ReferencePolicy = Literal["uniform", "own", "camera", "cameras"]
OF_A_RUN = {"output", "parts", "check", "cluster", "alias", "override_gate"}
"""Parameters of one run, not of the corpus: they are not recorded."""
_OVERRIDE = "Reason to publish although the quality gate fails; recorded."


class CropSettings(BaseModel):
    """How clean images are cut."""

    model_config = ConfigDict(extra="forbid")

    crop: int = Field(256, ge=16, description="Side of the square clean patches, pixels.")
    stride: int | None = Field(None, ge=1, description="Step between patches of the grid, pixels; default: no overlap.")
    crop_policy: Literal["grid", "random", "centre"] = Field(
        "grid", description="grid: all crops, the last one flush with the border; random: some per image; centre: one."
    )
    crops_per_image: int = Field(8, ge=1, description="Crops per image if the crop policy is random.")
    min_clean_std: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Skip flatter clean patches: minimum standard deviation, as a fraction of the data range.",
    )


class CorpusParameters(CropSettings):
    """Model, references, clean images and layout of a corpus."""

    output: str = Field(description="Folder or URL of the corpus.")
    model: str = Field("shipped", description=MODEL)
    references: str = Field(
        "shipped", description="Real noise: shipped, or the folder or URL of a patch store, catalogue or prompt bank."
    )
    split: str | None = Field(None, description="Only references of this split, e.g. train.")
    clean: str = Field(
        "shipped", description="Clean images: shipped, a folder, a Zarr array, a patch store or a catalogue."
    )
    clean_split: str | None = Field(None, description="Only clean images of this split, e.g. train.")
    clean_licence: str | None = Field(None, description="Licence of clean images whose source does not state one.")
    min_jpeg_quality: int | None = Field(None, ge=1, le=100, description="Skip JPEG files of lower quality, 1 to 100.")
    scale: int = Field(1, ge=1, description="Independent noisy samples per clean patch.")
    mode: Mode = Field(
        "pairs",
        description="pairs: store noisy and clean images; noisy: store noisy images and name the clean ones; recipe: "
        "store sources and seeds only.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the samples.")
    reference_policy: ReferencePolicy = Field(
        "uniform",
        description="Reference of each sample: uniform any; own the one with the id of the clean image; camera any of "
        "the camera of the clean image; cameras a random camera, then any of its references.",
    )
    weights: Weights | None = Field(
        None, description="Weight of each camera, as CAMERA=WEIGHT; other cameras are not used."
    )
    shard: int = Field(256, ge=1, description="Pairs per shard; a shard is one task and one object of every array.")
    device: Device = "cpu"
    gate: str = Field("default", description="Quality gate: default, or a YAML file of configs/quality_gates/.")
    override_gate: str | None = Field(None, min_length=3, description=_OVERRIDE)
    alias: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        description="Name beside the output that refers to this corpus from now on, e.g. latest.",
    )
    parts: Parts = None
    check: Literal["checksums", "sizes"] = Field(
        "checksums", description="How existing shards are checked: all bytes, or the sizes of their objects."
    )
    cluster: Cluster = Field(default_factory=inline)

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: dict[str, float] | None, info: ValidationInfo) -> dict[str, float] | None:
        if weights is None:
            return None
        if info.data.get("reference_policy") not in ("uniform", "cameras") or not weights:
            raise ValueError("requires at least one camera and the reference policy uniform or cameras")
        if not all(0 <= weight < math.inf for weight in weights.values()) or sum(weights.values()) <= 0:
            raise ValueError("must be numbers of 0 or more, and not all 0")
        return weights

    def identity_settings(self) -> dict[str, Any]:
        """The settings that determine pixels and rows: not locations, devices or the number of samples."""
        names = {"seed", "reference_policy", "weights", "split", "clean_licence", *CropSettings.model_fields}
        return self.model_dump(mode="json", include=names)

    def locations(self) -> dict[str, Any]:
        """Everything that makes the same corpus again: the settings and the locations of the sources."""
        content = self.model_dump(mode="json", exclude=OF_A_RUN)
        return content | {name: _without_secrets(content[name]) for name in ("model", "references", "clean")}


def _without_secrets(url: str) -> str:
    """A URL without user, password and query, which may hold tokens; a path unchanged."""
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class _Sources(BaseModel):
    """Current locations of what a corpus was made from."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Location of the model; default: as recorded.")
    references: str | None = Field(None, description="Location of the references; default: as recorded.")
    clean: str | None = Field(None, description="Location of the clean images; default: as recorded.")
    cluster: Cluster = Field(default_factory=inline)


class MaterialiseParameters(_Sources):
    """Corpus of recipes, and the corpus of images to make from it."""

    recipe: str = Field(description="Folder, URL or alias of a corpus made with `--mode recipe`.")
    output: str = Field(description="Folder or URL of the corpus.")
    mode: Literal["pairs", "noisy"] = Field(
        "pairs", description="pairs: store noisy and clean images; noisy: store noisy images and name the clean ones."
    )
    device: str | None = Field(None, description="Compute device: cpu, cuda or cuda:N; default: that of the recipe.")
    parts: Parts = None
    override_gate: str | None = Field(None, min_length=3, description=_OVERRIDE)


class RepairParameters(_Sources):
    """Corpus to repair."""

    corpus: str = Field(description="Folder, URL or alias of a corpus.")


class FinaliseParameters(BaseModel):
    """Store to finalise."""

    model_config = ConfigDict(extra="forbid")

    store: str = Field(description="Folder or URL of a patch store or corpus that was made with --parts.")
    cluster: Cluster = Field(default_factory=local)


class VerifyParameters(BaseModel):
    """Store to verify, and how much of it."""

    model_config = ConfigDict(extra="forbid")

    location: str = Field(
        description="Folder, URL or alias of a corpus, patch store, catalogue, prompt bank, export or model bundle."
    )
    sample: int | None = Field(None, ge=1, description="Corpora: verify this many random shards; default: all.")
    seed: int = Field(0, ge=0, description="Seed of the choice of shards.")
    trusted: list[str] = Field(
        default_factory=list, description="Files of public keys (PEM); require a signature by one of them."
    )
    cluster: Cluster = Field(default_factory=inline)


class ExportParameters(BaseModel):
    """Corpus to export, and the format of the files."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(description="Folder, URL or alias of a published corpus.")
    output: str = Field(description="Folder or URL of the export; lmdb: a local folder.")
    format: Literal["webdataset", "folders", "lmdb", "parquet"] = Field(
        description="Format of the files; parquet is read by Hugging Face datasets."
    )
    layout: Literal["basicsr", "nafnet", "restormer"] | None = Field(
        None, description="folders, lmdb: naming of folders and files; default: basicsr."
    )
    codec: Literal["png", "tiff"] = Field("png", description="Image codec, lossless; float images require tiff.")
    accepted_only: bool = Field(True, description="Skip pairs that the quality gate rejected.")
    pairs_per_file: int | None = Field(
        None, ge=1, description="Pairs per tar, table or task; default: a shard of the corpus."
    )
    cluster: Cluster = Field(default_factory=inline)
