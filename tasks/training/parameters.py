"""Parameters of the flow that trains noise models."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from tasks.runtime.parameters import Devices, MaxMinutes, RegisterAs


class TrainParameters(Devices):
    """Training configuration and where it runs."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field("configs/models/tiny.yaml", description="Training configuration: a file of configs/models/.")
    output: str = Field("runs/tiny", description="Local folder of checkpoints, logs and the bundle.")
    stores: list[str] = Field(
        default_factory=list, description="Patch stores to use instead of those in the configuration."
    )
    max_minutes: MaxMinutes = None
    register_as: RegisterAs = None
