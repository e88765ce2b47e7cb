"""Prometheus endpoint: the newest figures of every flow, and how many runs wait in every pool."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pngmodel.errors import UserError
from tasks.artifacts import attempt
from tasks.runrecords import PLACE, newest_records, waiting_in

SHOWN = {
    "seconds": "seconds that the newest run took",
    "pairs": "pairs that it made",
    "pairs_per_second": "pairs that it made a second",
    "bytes_written": "bytes that it wrote",
    "retries": "tries after the first",
    "rejects": "samples or files that it rejected",
    "model_busy_share": "its time in the model over its time",
    "gpu_busy_share": "mean utilisation of its GPU, 0 to 1",
}


class RunFigures(Collector):
    """Gauges ``pngnoise_<figure>`` and ``pngnoise_failed`` by flow, ``pngnoise_queue_depth`` by pool."""

    def __init__(self, root: str) -> None:
        self._root = root

    def collect(self) -> Iterator[Metric]:
        """One reading; what cannot be read is left out."""
        records = attempt("records of runs", lambda: newest_records(self._root, _flows())) or {}
        yield from gauges(records)
        depth = GaugeMetricFamily("pngnoise_queue_depth", "runs that should have begun and have not", labels=["pool"])
        for pool, waiting in (attempt("queues", _queues) or {}).items():
            depth.add_metric([pool], float(waiting))
        yield depth


def gauges(records: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """The figures of the newest run of each flow; what is no number in its record is left out."""
    for figure, words in SHOWN.items():
        gauge = GaugeMetricFamily(f"pngnoise_{figure}", words, labels=["flow"])
        for flow, record in records.items():
            value = record.get(figure)
            if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max:
                gauge.add_metric([flow], float(value))
        yield gauge
    failed = GaugeMetricFamily("pngnoise_failed", "1 where the newest run failed", labels=["flow"])
    for flow, record in records.items():
        failed.add_metric([flow], float(record.get("state") != "completed"))
    yield failed


def _flows() -> list[str]:
    with get_client(sync_client=True) as client:
        return [flow.name for flow in client.read_flows(limit=200)]


def _queues() -> dict[str, int]:
    with get_client(sync_client=True) as client:
        return {pool.name: waiting_in(pool.name) for pool in client.read_work_pools()}


def serve(port: int, address: str) -> None:
    """Serve until the process is ended.

    Raises:
        UserError: no place of records is set, or the port is taken.
    """
    root = os.environ.get(PLACE)
    if not root:
        raise UserError(f"{PLACE} is not set; give the folder or URL that runs write their figures to")
    REGISTRY.register(RunFigures(root))
    try:
        start_http_server(port, addr=address)
    except OSError as error:
        raise UserError(f"port {port} of {address}: {error}; choose another one: --port") from None
    threading.Event().wait()
