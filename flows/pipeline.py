"""What every flow of the product has: a name that says what it does, parameters that a schedule can repeat, figures for
operators, and a line in the log that says which code it was."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flows import Flow
from prefect.runtime import flow_run
from pydantic import BaseModel

from tasks.runtime.artifacts import attempt, log
from tasks.runtime.placeholders import resolve_placeholders
from tasks.runtime.progress import progress_bars
from tasks.runtime.provenance import commit
from tasks.runtime.run_summary import summarised
from tasks.stores.io.urls import refuse_secrets_in

Parameters = TypeVar("Parameters", bound=BaseModel)
Function = Callable[[Parameters], dict[str, Any]]


def pipeline(
    name: str, kind: type[Parameters], called: Callable[[Parameters], str]
) -> Callable[[Function[Parameters]], Flow[[Parameters], dict[str, Any]]]:
    """Make a flow of a function with one pydantic model of parameters.

    Args:
        name: of the flow.
        kind: of the parameters.
        called: name of a run, from its parameters.
    """

    def made(function: Function[Parameters]) -> Flow[[Parameters], dict[str, Any]]:
        @functools.wraps(function)
        def run(parameters: Parameters) -> dict[str, Any]:
            asked = resolve_placeholders(parameters, _scheduled())
            refuse_secrets_in(asked.model_dump())
            title = called(asked)
            attempt(f"name of the run {name}", lambda: _rename(title))
            log(f"{name}, commit {commit()}")
            with summarised(name, title), progress_bars():
                return function(asked)

        run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
        return flow(name=name, persist_result=False)(run)

    return made


def tail(url: str, parts: int = 2) -> str:
    """The last parts of a path or URL: enough to know it by."""
    return "/".join(part for part in url.rstrip("/").split("/")[-parts:] if part)


def part(parts: str | None) -> str:
    """Which share of the shards, where it is not all of them: ``, part 1/4``."""
    return f", part {parts}" if parts else ""


def _scheduled() -> datetime:
    """When the run was meant to begin: equal for every attempt at it."""
    when = flow_run.scheduled_start_time
    return datetime.fromisoformat(str(when)) if when else datetime.now(UTC)


def _rename(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(UUID(flow_run.get_id()), name)
