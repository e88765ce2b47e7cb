"""Parameter types that several flows share: clusters, devices, parts, NAME=VALUE pairs.

Modules named ``parameters`` hold the pydantic models of flow parameters. Prefect's forms, the command line and
docs/reference are generated from them, so they import pydantic only: `pngnoise --help` loads them all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class ClusterConfig(BaseModel):
    """One file of configs/clusters/."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["inline", "local", "address", "slurm", "kubernetes"] = Field(
        "inline",
        description="inline: this process; local: a Dask cluster of processes on this machine; address: a running Dask "
        "scheduler; slurm, kubernetes: a cluster that the run starts (requires pngnoise[hpc]).",
    )
    workers: int | None = Field(
        None, ge=1, description="Number of worker processes; default: one per core. Required for slurm and kubernetes."
    )
    gpus: int | None = Field(
        None, ge=1, description="local: number of GPUs of this machine to use, one worker per GPU."
    )
    address: str | None = Field(None, description="address: URL of the scheduler, e.g. tcp://scheduler:8786.")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="Resources that each task requires of its worker, e.g. {GPU: 1} for workers started with "
        "--resources GPU=1.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="slurm: arguments of dask_jobqueue.SLURMCluster (queue, cores, memory, walltime, ...); "
        "kubernetes: arguments of dask_kubernetes.operator.KubeCluster (image, namespace, resources, ...).",
    )


def load_cluster(name: str) -> ClusterConfig:
    """``inline``, ``local``, or a YAML file such as those in configs/clusters/."""
    if name in ("inline", "local"):
        return ClusterConfig(kind="inline" if name == "inline" else "local")
    from tasks.runtime.configuration import load_yaml

    return load_yaml(name, ClusterConfig)


def _cluster(value: Any) -> Any:
    return load_cluster(value) if isinstance(value, str) else value


Cluster = Annotated[
    ClusterConfig,
    BeforeValidator(_cluster, json_schema_input_type=str | ClusterConfig),
    Field(description="Where tasks run: inline, local, or a YAML file of configs/clusters/."),
]


def inline() -> ClusterConfig:
    """Default: tasks run in this process, one after the other."""
    return ClusterConfig(kind="inline")


def local() -> ClusterConfig:
    """Default: tasks run on a Dask cluster on this machine, one process per core."""
    return ClusterConfig(kind="local")


def _pairs(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    pairs = [str(item).rpartition("=") for item in value]
    if wrong := [item for item, (name, _, _) in zip(value, pairs, strict=True) if not name]:
        raise ValueError(f"expected NAME=VALUE, found {wrong[0]!r}")
    return {name: content for name, _, content in pairs}


Weights = Annotated[dict[str, float], BeforeValidator(_pairs, json_schema_input_type=dict[str, float] | list[str])]
"""Numbers by name: a mapping, or a list of NAME=NUMBER."""
Named = Annotated[dict[str, str], BeforeValidator(_pairs, json_schema_input_type=dict[str, str] | list[str])]
"""Values by name: a mapping, or a list of NAME=VALUE."""

Device = Annotated[str, Field(description="Compute device: cpu, cuda or cuda:N.")]
Parts = Annotated[
    str | None,
    Field(description="Make only part I of N, given as I/N; then run `pngnoise finalise` to publish all parts."),
]
Limit = Annotated[int | None, Field(ge=1, description="Maximum number of pairs, evenly spread; default: all.")]
RegisterAs = Annotated[str | None, Field(description="REGISTRY/NAME: register the trained model as its next version.")]
MaxMinutes = Annotated[
    float | None, Field(gt=0, description="Stop after this many minutes per stage; rerun the command to resume.")
]


class Devices(BaseModel):
    """Devices of one training. A step's samples do not depend on them; dropout masks and rounding do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Device = "cpu"
    devices: int = Field(
        1, ge=1, description="Number of devices (or CPU processes) of this machine that share each batch."
    )
    nodes: int = Field(1, ge=1, description="Number of machines; start the same command on each with torchrun.")
    workers: int = Field(
        0, ge=0, description="Number of data loading processes per device; 0: load in the main process."
    )

    @property
    def placement(self) -> Devices:
        """These four settings alone, for a subclass that has more."""
        return Devices(**self.model_dump(include=set(Devices.model_fields)))
