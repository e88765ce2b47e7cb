"""Decorator of all flows: descriptive run names, placeholders in parameters, run metrics, and the commit in the log."""

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
    name: str, kind: type[Parameters], run_name: Callable[[Parameters], str]
) -> Callable[[Function[Parameters]], Flow[[Parameters], dict[str, Any]]]:
    """Create a Prefect flow from a function with one pydantic model of parameters.

    Args:
        name: Name of the flow.
        kind: Class of the parameters.
        run_name: Returns the name of a run for its parameters.
    """

    def decorator(function: Function[Parameters]) -> Flow[[Parameters], dict[str, Any]]:
        @functools.wraps(function)
        def run(parameters: Parameters) -> dict[str, Any]:
            resolved = resolve_placeholders(parameters, _scheduled())
            refuse_secrets_in(resolved.model_dump())
            title = run_name(resolved)
            attempt(f"name of the run {name}", lambda: _rename(title))
            log(f"{name}, commit {commit()}")
            with summarised(name, title), progress_bars():
                return function(resolved)

        run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
        return flow(name=name, persist_result=False)(run)

    return decorator


def tail(url: str, parts: int = 2) -> str:
    """Return the last ``parts`` components of a path or URL, for names of runs."""
    return "/".join(part for part in url.rstrip("/").split("/")[-parts:] if part)


def part(parts: str | None) -> str:
    """Format the part of a run, e.g. ``, part 1/4``; empty if it processes all shards."""
    return f", part {parts}" if parts else ""


def _scheduled() -> datetime:
    """Return the scheduled start time of the run, which is equal for all its retries."""
    when = flow_run.scheduled_start_time
    return datetime.fromisoformat(str(when)) if when else datetime.now(UTC)


def _rename(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(UUID(flow_run.get_id()), name)
