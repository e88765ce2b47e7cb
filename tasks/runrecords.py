"""One JSON file per run for its operators, and the same as a table in Prefect's UI."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment, flow_run

from pngmodel.jsontext import decode_json
from tasks.artifacts import attempt, publish_markdown, table
from tasks.operations import metered
from tasks.provenance import commit
from tasks.stores.filesystem import join, read_if_there, write_json

PLACE = "PNGNOISE_RUN_METRICS"
FORMAT_VERSION = 1
_LATEST = "latest.json"
_MOST = 200  # runs that are counted as waiting


@contextmanager
def recorded(flow: str, name: str) -> Iterator[None]:
    """Keep the figures of a run of ``flow`` called ``name``, which is the block, whether it fails or not.

    The file is ``PNGNOISE_RUN_METRICS/FLOW/RUN.json``, and ``latest.json`` beside it that of the run that ended
    last; without that variable there is only the table.
    """
    facts: dict[str, Any] = {"format_version": FORMAT_VERSION, "flow": flow, "run": flow_run.get_id(), "name": name}
    facts |= {"begun": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "state": "completed"}
    try:
        with metered() as run:
            yield
    except BaseException as error:
        facts |= {"state": "failed", "error": type(error).__name__}
        raise
    finally:
        facts |= run.figures
        attempt("figures of the run", lambda: _keep(facts))


def _keep(facts: dict[str, Any]) -> None:
    facts["queue_depth"] = attempt("queue depth", _waiting)
    stages = [f"{name}: {at['done']} of {at['total']} {at['unit']}" for name, at in facts["stages"].items()]
    shown = {
        key: value for key, value in facts.items() if value is not None and key not in ("stages", "format_version")
    }
    publish_markdown(
        "run-figures", f"# Run\n\n{table(shown | {'stages': '; '.join(stages) or 'none'})}", "for operators"
    )
    if root := os.environ.get(PLACE):
        for name in (f"{facts['run']}.json", _LATEST):
            write_json(join(root, facts["flow"], name), facts)


def _waiting() -> int | None:
    """Runs of this run's work pool that should have begun and have not; None outside of one."""
    if deployment.get_id() is None:
        return None
    with get_client(sync_client=True) as client:
        pool = client.read_flow_run(UUID(flow_run.get_id())).work_pool_name
        return None if pool is None else waiting_in(pool)


def newest_records(root: str, flows: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The record of the run that ended last of each of these flows that has one, below ``PNGNOISE_RUN_METRICS``.

    A damaged one is logged and left out: the figures of other flows are worth telling.
    """
    found = {}
    for flow in flows:
        content = read_if_there(join(root, flow, _LATEST))
        record = None if content is None else attempt(f"record of {flow}", partial(_record, content))
        if record is not None:
            found[flow] = record
    return found


def _record(content: bytes) -> dict[str, Any]:
    record = decode_json(content)
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    return record


def waiting_in(pool: str) -> int:
    """Runs that should have begun and have not, of a work pool; at most 200 are counted."""
    states = FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])
    with get_client(sync_client=True) as client:
        waiting = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=states),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            limit=_MOST,
        )
    return len(waiting)
