"""Publishes the metrics of a run as an artifact in Prefect's UI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tasks.runtime.artifacts import publish_markdown, table
from tasks.runtime.provenance import commit
from tasks.runtime.run_metrics import collect_metrics


@contextmanager
def summarised(flow: str, name: str) -> Iterator[None]:
    """Publish the artifact ``run-metrics`` for a run of ``flow`` called ``name`` when the block ends or fails."""
    facts: dict[str, Any] = {"flow": flow, "name": name, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    facts |= {"commit": commit(), "state": "completed"}
    try:
        with collect_metrics() as run:
            yield
    except BaseException as error:
        facts |= {"state": "failed", "error": type(error).__name__}
        raise
    finally:
        facts |= run.metrics
        publish_markdown("run-metrics", lambda: _page(facts), "metrics of this run")


def _page(facts: dict[str, Any]) -> str:
    stages = [f"{name}: {at['done']} of {at['total']} {at['unit']}" for name, at in facts["stages"].items()]
    shown = {key: value for key, value in facts.items() if value is not None and key != "stages"}
    return f"# Run\n\n{table(shown | {'stages': '; '.join(stages) or 'none'})}"
