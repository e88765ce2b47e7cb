"""The retry policy of the product: which failures are retried, how often, and after how long.

- A request to object storage: botocore retries it (:data:`REQUEST`).
- Content that arrives damaged or incomplete: read again, up to :data:`CONTENT_ATTEMPTS` times.
- A task that ends in a :class:`~pngmodel.errors.TransientError`: Prefect reruns it (:data:`TASK_RETRIES`).

Every other error is final.
"""

from __future__ import annotations

from typing import Any

REQUEST: dict[str, Any] = {
    # Adaptive: exponential backoff with jitter, and fewer requests while a server answers SlowDown. Outages of tens of
    # seconds pass unnoticed; a wrong endpoint fails within about a minute.
    "retries": {"max_attempts": 12, "mode": "adaptive"},
    "connect_timeout": 5,
    "read_timeout": 30,
    "max_pool_connections": 32,
}
"""Configuration of every S3 client."""
CONTENT_ATTEMPTS = 5
"""Reads of one object or byte range before its damage counts as real."""
TASK_RETRIES = 2
TASK_DELAYS = [10.0, 60.0]
"""Seconds before each rerun of a task: a server restarts, then it is repaired."""
