"""Parameters of the flows that train, evaluate and run denoisers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tasks.runtime.parameters import Cluster, Device, Devices, MaxMinutes, Parts, RegisterAs, inline

DENOISER = "Denoiser: nlm (non-local means), or the folder or URL of a bundle."


def _fields(text: str, location: str) -> dict[str, str]:
    """NAME=LOCATION[,KEY=VALUE...] as fields."""
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(key and equals for key, equals, _ in pairs) or not pairs[0][2]:
        raise ValueError(f"expected NAME=LOCATION or NAME=LOCATION,KEY=VALUE, found {text!r}")
    (name, _, value), *rest = pairs
    return {"name": name, location: value} | {key: content for key, _, content in rest}


class TestSet(BaseModel):
    """Real pairs for testing denoisers."""

    __test__ = False  # not a class of tests
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.+-]*$", description="Name in tables.")
    references: str = Field(description="shipped, or the folder or URL of a patch store or catalogue.")
    split: str | None = Field(None, description="Only pairs of this split, e.g. validation.")
    camera: str | None = Field(None, description="Only pairs of this camera.")
    limit: int | None = Field(None, ge=1, description="Maximum number of pairs, evenly spread; default: all.")


class Arm(BaseModel):
    """Training data to compare with real pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name in folders and tables: lower-case letters, digits, _ . + -.")
    synthetic: str | None = Field(
        None,
        description="A corpus, or a noise generator that makes new noise for each sample: shipped, a bundle or the "
        "name of a baseline.",
    )
    repeats: int | None = Field(
        None, ge=1, description="Use only the first samples per clean image of a corpus; default: all."
    )
    share: float = Field(1.0, ge=0, le=1, description="Probability that a sample is synthetic; 0.5: half and half.")


def _test(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _fields(value, "references")
    references, at, split = found["references"].rpartition("@")
    return found | {"references": references, "split": split} if at else found


def _arm(value: Any) -> Any:
    return _fields(value, "synthetic") if isinstance(value, str) else value


Tests = list[Annotated[TestSet, BeforeValidator(_test, json_schema_input_type=str | TestSet)]]
Arms = list[Annotated[Arm, BeforeValidator(_arm, json_schema_input_type=str | Arm)]]
TESTS = "Real pairs to test on, each NAME=PAIRS[@SPLIT][,camera=CAMERA][,limit=NUMBER]"


class TrainDenoiserParameters(Devices):
    """Training configuration and data of denoisers."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field(
        "configs/denoisers/dncnn.yaml", description="Training configuration: a file of configs/denoisers/."
    )
    output: str = Field("runs/denoisers", description="Local folder of the bundles, ARM/seed-N/bundle.")
    real: list[str] = Field(min_length=1, description="Patch stores of real pairs.")
    split: str = Field("train", description="Only real pairs of this split.")
    arms: Arms = Field(
        default_factory=list,
        description="Synthetic training data to compare with real pairs, each NAME=SOURCE[,share=SHARE]"
        "[,repeats=NUMBER]: SOURCE is a corpus, shipped, a bundle or a baseline; SHARE, 0 to 1, is the share of "
        "synthetic samples.",
    )
    control: bool = Field(True, description="Also train on real pairs alone; comparisons require it.")
    seeds: list[int] = Field(
        default=[0, 1, 2], min_length=1, description="Seeds; one denoiser is trained per seed and arm."
    )
    steps: int | None = Field(None, ge=1, description="Training steps; default: those of the configuration.")
    max_minutes: MaxMinutes = None
    register_as: RegisterAs = None
    cluster: Cluster = Field(default_factory=inline)


class EvaluateDenoiserParameters(BaseModel):
    """Denoisers and real pairs of an evaluation."""

    model_config = ConfigDict(extra="forbid")

    denoisers: list[str] = Field(min_length=1, description="Folders of `pngnoise train-denoiser`, bundles, or nlm.")
    tests: Tests = Field(min_length=1, description=f"{TESTS}.")
    control: str = Field("real", description="Arm that the others are compared with, if present.")
    protocol: Literal["sidd", "float"] = Field(
        "sidd", description="sidd: round to 8 bits, peak 255; float: do not round."
    )
    device: Device = "cpu"
    output: str = Field(
        "runs/denoiser-evaluation", description="Folder or URL of record.json, report.html and results."
    )
    cluster: Cluster = Field(default_factory=inline)


class EstimateParameters(BaseModel):
    """Noisy images, denoiser and patch store of estimated clean images."""

    model_config = ConfigDict(extra="forbid")

    store: str = Field(description="Folder or URL of a patch store; only its noisy images are read.")
    denoiser: str = Field("nlm", description=DENOISER)
    output: str = Field(description="Folder or URL of the new patch store.")
    parts: Parts = None
    device: Device = "cpu"
    cluster: Cluster = Field(default_factory=inline)


class SubmitParameters(BaseModel):
    """Benchmark, denoiser and folder of a submission."""

    model_config = ConfigDict(extra="forbid")

    benchmark: Literal["sidd", "dnd"] = Field(description="Benchmark (sRGB).")
    catalogue: str = Field(description="Folder or URL written by `pngnoise ingest --adapter sidd-benchmark` or `dnd`.")
    denoiser: str = Field(description=DENOISER)
    output: str = Field(description="Local folder; its folder upload/ holds the files for the server.")
    form: Literal["mat", "kaggle"] = Field("mat", description="File format: mat; for sidd also kaggle (CSV).")
    method: str | None = Field(None, description="sidd: name of the method; default: the denoiser's name.")
    authors: str = Field("", description="sidd: authors of the method.")
    paper_title: str = Field("", description="sidd: title of the paper.")
    venue: str = Field("", description="sidd: venue of the paper.")
    device: Device = "cpu"
    cluster: Cluster = Field(default_factory=inline)
