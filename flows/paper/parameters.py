"""What all subflows of `reproduce_paper` are told."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from tasks.denoising.measurement import TestSet
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.provenance import commit, device_name

OURS = "png"


class ReproduceParameters(BaseModel):
    """Which tables, on which data."""

    model_config = ConfigDict(extra="forbid")

    real: str = Field(description="patch store of real pairs; its split 'train' is trained on")
    tests: list[TestSet] = Field(min_length=1, description="real pairs to measure on, the own domain first")
    budget: str = Field("smoke", description="smoke, small, full, or a YAML file")
    output: str = Field("runs/paper", description="local folder; the pages are in its folder pages/")
    model: str = Field("shipped", description="'shipped' or a bundle")
    baselines: dict[str, str] = Field(
        default={name: name for name in ("awgn", "heteroscedastic", "spectrum_matched")},
        description="name -> generator (a baseline's name or a bundle) to train denoisers on, too",
    )
    compare: list[str] = Field(default_factory=list, description="bundles of trained baselines, compared as noise")
    estimator: str = Field("nlm", description="denoiser that estimates clean images where there are no pairs")
    tables: list[str] = Field(default_factory=list, description="only these; default all")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    cluster: ClusterConfig = Field(
        default_factory=lambda: ClusterConfig(kind="inline"), description="where the work of all tables is done"
    )

    def location(self, *names: str) -> str:
        """A place below the output."""
        return "/".join([self.output.rstrip("/"), *names])

    @property
    def facts(self) -> Mapping[str, str]:
        """What stands below every page."""
        return {"page made at commit": commit(), "device": device_name(self.device), "model": self.model}

    @property
    def models(self) -> dict[str, str]:
        """Generators that denoisers are trained on, by arm."""
        return {OURS: self.model} | self.baselines
