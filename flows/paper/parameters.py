"""Parameters of `reproduce_paper` and its subflows."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from tasks.denoising.measurement import TestSet
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.provenance import commit, device_name

OURS = "png"


class ReproduceParameters(BaseModel):
    """Tables to create, and their data."""

    model_config = ConfigDict(extra="forbid")

    real: str = Field(description="patch store of real pairs; its split 'train' is used for training")
    tests: list[TestSet] = Field(min_length=1, description="test sets of real pairs, the training domain first")
    budget: str = Field("smoke", description="smoke, small, full, or a YAML file")
    output: str = Field("runs/paper", description="local folder; pages are written to its folder pages/")
    model: str = Field("shipped", description="'shipped' or a bundle")
    baselines: dict[str, str] = Field(
        default={name: name for name in ("awgn", "heteroscedastic", "spectrum_matched")},
        description="name -> generator (a baseline's name or a bundle) for additional denoisers",
    )
    compare: list[str] = Field(
        default_factory=list, description="bundles of trained baselines to include in the noise evaluation"
    )
    estimator: str = Field("nlm", description="denoiser that estimates clean images for unpaired references")
    tables: list[str] = Field(default_factory=list, description="tables to create; default all")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="where the tasks of all tables run"
    )

    def location(self, *names: str) -> str:
        """Return a path within the output folder."""
        return "/".join([self.output.rstrip("/"), *names])

    @property
    def facts(self) -> Mapping[str, str]:
        """Provenance listed at the end of every page."""
        return {"page made at commit": commit(), "device": device_name(self.device), "model": self.model}

    @property
    def models(self) -> dict[str, str]:
        """Arm -> generator of its training data."""
        return {OURS: self.model} | self.baselines
