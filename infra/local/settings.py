"""Settings of the local stack from environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pngmodel.errors import UserError

_OWN_KEY = "pngnoise"  # for the server on loopback, which does not check credentials


class StackSettings(BaseSettings):
    """Environment variables PNGNOISE_<NAME IN CAPITALS>; all have defaults."""

    model_config = SettingsConfigDict(env_prefix="PNGNOISE_", extra="ignore")

    stack: Path = Field(Path(".stack"), description="folder for database, objects, logs and the list of processes")
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of the Prefect server and UI on 127.0.0.1")
    s3_port: int = Field(9008, ge=1, le=65535, description="port of the S3-compatible server on 127.0.0.1")
    cpu_slots: int = Field(2, ge=1, description="maximum number of concurrent runs in pool cpu")
    gpu_slots: int = Field(
        1,
        ge=1,
        description="maximum number of concurrent runs in pool gpu, one worker each; if greater than the number of "
        "devices, they share devices",
    )
    storage: str = Field("s3://pngnoise", description="location for corpora, models and records")
    own_s3: bool = Field(
        True, description="false: do not start an S3 server; use Amazon S3 or the server set by AWS_ variables"
    )
    patches: str | None = Field(
        None, description="patch store of real pairs; default: one is created from the shipped samples"
    )
    deployments: Path = Field(Path("infra/prefect.yaml"), description="deployments with their schedules and triggers")
    automations: Path = Field(Path("infra/automations.yaml"), description="automations of the Prefect server")

    @property
    def own_storage(self) -> bool:
        """Whether to start an S3-compatible server: unless another one is configured or ``own_s3`` is false."""
        # The user's shell may set AWS_ENDPOINT_URL to the stack's own server.
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or self._own_endpoint
        return self.own_s3 and self.storage.startswith("s3://") and endpoint.rstrip("/") == self._own_endpoint

    @property
    def own_server(self) -> bool:
        """Whether to start a Prefect server: unless PREFECT_API_URL is set to another one."""
        url = os.environ.get("PREFECT_API_URL")
        return not url or url.rstrip("/").replace("//localhost:", "//127.0.0.1:") == self.api

    @property
    def api(self) -> str:
        """URL of the stack's own Prefect server."""
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def endpoint(self) -> str:
        """URL of the S3-compatible server; empty for the default of the provider."""
        if not self.own_s3:
            return os.environ.get("AWS_ENDPOINT_URL", "")
        return os.environ.get("AWS_ENDPOINT_URL") or self._own_endpoint

    @property
    def _own_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    def environment(self) -> dict[str, str]:
        """Environment of all processes of the stack. Secrets come from the caller's environment and are not stored."""
        folder = self.stack.absolute()
        defaults = {
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # By default only events are deleted; the table of runs would grow without limit.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # In memory by default; runs holding a concurrency slot would be stopped when the server restarts.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            "PNGNOISE_HOME": str(Path.cwd()),
            "PNGNOISE_STORAGE": self.storage,
            "PNGNOISE_WORK": str(folder / "work"),
            "PNGNOISE_GPU_SLOTS": str(self.gpu_slots),
        }
        if self.storage.startswith("s3://") and self.endpoint:
            defaults |= {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
            if urlsplit(self.endpoint).hostname in ("127.0.0.1", "localhost"):
                defaults["PNGNOISE_S3_WEB"] = self.endpoint
        if self.own_storage:
            defaults |= {"AWS_ACCESS_KEY_ID": _OWN_KEY, "AWS_SECRET_ACCESS_KEY": _OWN_KEY}
        # The stack has its own database, even if PREFECT_HOME is set for runs of single commands.
        given = {name: value for name, value in os.environ.items() if value}
        environment = defaults | given | {"PREFECT_HOME": str(folder / "prefect")}
        if secret := environment.get("PREFECT_SERVER_API_AUTH_STRING"):
            environment.setdefault("PREFECT_API_AUTH_STRING", secret)
        return environment


def load_settings() -> StackSettings:
    """Load the settings from the environment.

    Raises:
        UserError: A variable is invalid.
    """
    try:
        return StackSettings()
    except ValidationError as error:
        invalid = (f"PNGNOISE_{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg']}" for e in error.errors())
        raise UserError("; ".join(invalid)) from None
