"""Configure a Prefect server from the files in infra/: work pools and queues, deployments, automations, notifications.

Idempotent: objects that match the files are not changed, and schedules keep the state that was set in the UI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.types import SecretDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pngmodel.errors import UserError
from tasks.runtime.configuration import load_yaml

HOME, GPU_SLOTS, CPU_SLOTS = "PNGNOISE_HOME", "PNGNOISE_GPU_SLOTS", "PNGNOISE_CPU_SLOTS"
WEBHOOK = "PNGNOISE_FAILURE_WEBHOOK"
INFRA = Path("infra")
_QUEUES = {"cpu": ("default",), "gpu": ("evaluation", "corpora", "training")}
"""Queues of each pool by decreasing priority."""
_NEW_SLOTS = {"cpu": None, "gpu": 1}
_BLOCK = "pngnoise-failures"


class AutomationFile(BaseModel):
    """infra/automations.yaml: automations in Prefect's format, with two additional keys."""

    model_config = ConfigDict(extra="forbid")

    automations: list[dict[str, Any]] = Field(
        description="Prefect automations. `needs`: environment variable without which the automation is skipped; "
        "`block` of an action: TYPE/NAME of its block"
    )


def provision(deployments: Path, automations: Path) -> dict[str, Any]:
    """Configure the server according to these files; return its pools, deployments and automations.

    Raises:
        UserError: A file is invalid, no server answers, or `prefect deploy` fails.
    """
    for file in (deployments, automations):
        if not file.is_file():
            raise UserError(f"{file}: no such file; run the command in the folder with infra/, or pass the path")
    rules = load_yaml(automations, AutomationFile).automations
    with get_client(sync_client=True) as client:
        if (down := client.api_healthcheck()) is not None:
            raise UserError(f"PREFECT_API_URL {client.api_url}: no server answers ({down}); start it, e.g. `make up`")
        with _authenticated(str(client.api_url)):
            pools = [_pool(client, name, slots) for name, slots in _slots().items()]
        switches = _switches(client)
        try:
            _deploy(deployments)
        finally:  # also after a partial deployment, so that the next call does not keep changed states
            _restore(client, switches)
        applied = [name for rule in rules if (name := _automation(client, dict(rule), automations))]
        found = sorted(f"{d.name}" for d in client.read_deployments(limit=200))
    return {"server": str(client.api_url), "work_pools": pools, "deployments": found, "automations": applied}


@contextmanager
def _authenticated(url: str) -> Iterator[None]:
    try:
        yield
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.UNAUTHORIZED:
            raise
        raise UserError(
            f"{url}: the server requires a password; set PREFECT_API_AUTH_STRING to user:password of that server"
        ) from None


def _slots() -> dict[str, int | None]:
    """Read the slots of each pool from the environment; None if not set."""
    found: dict[str, int | None] = {}
    for pool, name in (("cpu", CPU_SLOTS), ("gpu", GPU_SLOTS)):
        value = os.environ.get(name) or None
        if value is not None and not (value.isdecimal() and int(value) > 0):
            raise UserError(f"{name} is {value!r}; set it to the number of concurrent runs, at least 1")
        found[pool] = None if value is None else int(value)
    return found


def _pool(client: SyncPrefectClient, name: str, slots: int | None) -> str:
    """Create or update a pool and its queues. An existing pool keeps its type (e.g. kubernetes), and its limit unless
    ``slots`` is set. A new pool ``gpu`` has one slot."""
    try:
        pool = client.read_work_pool(name)
        if slots is not None and slots != pool.concurrency_limit:
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=slots))
    except ObjectNotFound:
        new = WorkPoolCreate(name=name, type="process", concurrency_limit=slots or _NEW_SLOTS[name])
        pool = client.create_work_pool(new)
    existing = {queue.name: queue for queue in client.read_work_queues(work_pool_name=name)}
    for priority, queue in enumerate(_QUEUES[name], 1):
        if queue not in existing:
            client.create_work_queue(name=queue, work_pool_name=name, priority=priority)
        elif existing[queue].priority != priority:
            client.update_work_queue(existing[queue].id, priority=priority)
    return f"{name} ({pool.type}, {client.read_work_pool(name).concurrency_limit or 'unlimited'} concurrent runs)"


def _switches(client: SyncPrefectClient) -> dict[tuple[str, str], bool]:
    """Return whether each schedule is active, by deployment and slug."""
    return {
        (deployment.name, schedule.slug): schedule.active
        for deployment in client.read_deployments(limit=200)
        for schedule in deployment.schedules
        if schedule.slug
    }


def _restore(client: SyncPrefectClient, switches: dict[tuple[str, str], bool]) -> None:
    for deployment in client.read_deployments(limit=200):
        for schedule in deployment.schedules:
            active = switches.get((deployment.name, schedule.slug or ""))
            if active is not None and active != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=active)


def _deploy(file: Path) -> None:
    """Deploy all deployments of the file with `prefect deploy`, which also replaces their triggers."""
    environment = os.environ | {HOME: os.environ.get(HOME) or str(Path.cwd())}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise UserError(f"{file}: `prefect deploy` failed: {output}")


def _automation(client: SyncPrefectClient, rule: dict[str, Any], file: Path) -> str | None:
    """Create or update an automation; return its name, or None if its environment variable is not set."""
    if (variable := rule.pop("needs", None)) and not os.environ.get(variable):
        return None
    for action in rule.get("actions", ()):
        if "block" in action:
            action["block_document_id"] = str(_block(client, action.pop("block")))
    try:
        automation = AutomationCore.model_validate(rule)
    except ValidationError as error:
        raise UserError(f"{file}: automation {rule.get('name')!r}: {error}") from None
    existing = client.read_automations_by_name(automation.name)
    if existing:
        automation.enabled = existing[0].enabled  # keep the state set in the UI
        # Update only if it differs, because after an update the server forgets the runs that it watches.
        if _content(existing[0]) != _content(automation):
            client.update_automation(existing[0].id, automation)
        for duplicate in existing[1:]:
            client.delete_automation(duplicate.id)
    else:
        client.create_automation(automation)
    return automation.name


def _content(automation: AutomationCore) -> Any:
    """Return the content of an automation without fields set by the server."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key not in ("id", "created", "updated")}
        if isinstance(value, list):
            return sorted(map(plain, value), key=str)
        return value

    return plain(automation.model_dump(mode="json"))


def _block(client: SyncPrefectClient, reference: str) -> Any:
    """Return the id of the block TYPE/NAME; create the block for failures, whose secret URL is in the environment."""
    kind, _, name = reference.partition("/")
    if name == _BLOCK:
        block = CustomWebhookNotificationBlock(
            name=_BLOCK,
            url="{{webhook}}",
            secrets=SecretDict({"webhook": os.environ[WEBHOOK]}),  # the URL is a secret
            json_data={"text": "{{subject}}\n{{body}}"},
        )
        return block.save(_BLOCK, overwrite=True)
    try:
        return client.read_block_document_by_name(name, kind).id
    except ObjectNotFound:
        raise UserError(f"automations: block {reference} does not exist; create it with `prefect block`") from None
