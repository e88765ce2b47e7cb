"""Parameters of `reproduce_paper` and all its subflows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.denoising.parameters import DENOISER, TESTS, Tests
from tasks.runtime.parameters import Cluster, Device, Named, inline

OURS = "png"
Table = Literal[
    "noise-quality",
    "downstream",
    "cross-domain",
    "scaling",
    "unpaired",
    "ablation",
    "c2st",
    "classifier",
    "speed",
]


class ReproduceParameters(BaseModel):
    """Tables to make, data and budget."""

    model_config = ConfigDict(extra="forbid")

    real: str = Field(description="Patch store of real pairs; its split `train` is the training data.")
    tests: Tests = Field(min_length=1, description=f"{TESTS}; the domain of the training data first.")
    budget: str = Field("smoke", description="Budget: smoke, small, full, or a YAML file as in configs/paper/.")
    output: str = Field("runs/paper", description="Local folder; the pages are in its folder pages/.")
    model: str = Field("shipped", description="Noise model: shipped, or the folder or URL of a bundle.")
    baselines: Named = Field(
        default={name: name for name in ("awgn", "heteroscedastic", "spectrum_matched")},
        description="Further generators to train denoisers on, as NAME=GENERATOR: a baseline or a bundle.",
    )
    compare: list[str] = Field(default_factory=list, description="Bundles of trained baselines to evaluate as noise.")
    estimator: str = Field("nlm", description=f"{DENOISER} Estimates clean images for the unpaired setting.")
    tables: list[Table] = Field(default_factory=list, description="Tables to make; default: all.")
    device: Device = "cpu"
    cluster: Cluster = Field(default_factory=inline)

    def location(self, *names: str) -> str:
        """A path or URL below the output."""
        return "/".join([self.output.rstrip("/"), *names])

    @property
    def facts(self) -> Mapping[str, str]:
        """Commit, device and model, shown below every page."""
        from tasks.runtime.provenance import commit, device_name  # imports torch, which --help does not need

        return {"page made at commit": commit(), "device": device_name(self.device), "model": self.model}

    @property
    def models(self) -> dict[str, str]:
        """Arm -> generator of its training data."""
        return {OURS: self.model} | self.baselines
