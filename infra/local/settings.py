"""What the stack is told by the environment."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pngmodel.errors import UserError

_OWN_KEY = "pngnoise"  # of a server on loopback that checks none


class StackSettings(BaseSettings):
    """Variables PNGNOISE_<NAME IN CAPITALS>; all have defaults."""

    model_config = SettingsConfigDict(env_prefix="PNGNOISE_", extra="ignore")

    stack: Path = Field(Path(".stack"), description="folder of the stack: database, objects, logs, which processes run")
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of Prefect's server and UI on 127.0.0.1")
    s3_port: int = Field(9008, ge=1, le=65535, description="port of the S3-compatible server on 127.0.0.1")
    cpu_slots: int = Field(2, ge=1, description="runs of the pool cpu at once")
    gpu_slots: int = Field(
        1, ge=1, description="runs of the pool gpu at once, each by a worker of its own; more than devices: they share"
    )
    storage: str = Field("s3://pngnoise", description="where corpora, models and records go")
    own_s3: bool = Field(True, description="false: s3:// is Amazon's, or what the AWS_ variables say; none is started")
    patches: str | None = Field(
        None, description="patch store of real pairs; default: one of the shipped samples is made"
    )
    deployments: Path = Field(Path("infra/prefect.yaml"), description="deployments with their schedules and triggers")
    automations: Path = Field(Path("infra/automations.yaml"), description="rules of the whole server")

    @property
    def own_storage(self) -> bool:
        """Whether the stack starts an S3-compatible server: unless the environment names one, or says no."""
        named = os.environ.get("AWS_ENDPOINT_URL") or self._own_endpoint  # a shell may have it for its own commands
        return self.own_s3 and self.storage.startswith("s3://") and named.rstrip("/") == self._own_endpoint

    @property
    def own_server(self) -> bool:
        """Whether the stack starts a Prefect server: unless PREFECT_API_URL names another one."""
        url = os.environ.get("PREFECT_API_URL")
        return not url or url.rstrip("/").replace("//localhost:", "//127.0.0.1:") == self.api

    @property
    def api(self) -> str:
        """Address of the stack's own Prefect server."""
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def endpoint(self) -> str:
        """Address of the S3-compatible server; empty: the provider's own."""
        if not self.own_s3:
            return os.environ.get("AWS_ENDPOINT_URL", "")
        return os.environ.get("AWS_ENDPOINT_URL") or self._own_endpoint

    @property
    def _own_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    def environment(self) -> dict[str, str]:
        """What every process of the stack sees. Secrets come from the caller's environment and are written nowhere."""
        folder = self.stack.absolute()
        defaults = {
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # Of events alone by default: the table of runs would grow for ever.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # In memory by default: whoever has a slot of a deployment would be ended when the server starts again.
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
        # A database of its own, also where the caller has one for the runs of single commands.
        given = {name: value for name, value in os.environ.items() if value}
        found = defaults | given | {"PREFECT_HOME": str(folder / "prefect")}
        if secret := found.get("PREFECT_SERVER_API_AUTH_STRING"):
            found.setdefault("PREFECT_API_AUTH_STRING", secret)
        return found


def load_settings() -> StackSettings:
    """The settings of this environment.

    Raises:
        UserError: a variable cannot be used; names it.
    """
    try:
        return StackSettings()
    except ValidationError as error:
        told = "; ".join(f"PNGNOISE_{str(e['loc'][0]).upper()} is {e['input']!r}: {e['msg']}" for e in error.errors())
        raise UserError(told) from None
