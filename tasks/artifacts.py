"""Prefect artifacts and logs that can never fail a flow."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

_LOG = logging.getLogger(__name__)


def publish_markdown(key: str, markdown: str | Callable[[], str], description: str | None = None) -> None:
    """Show ``markdown`` with the current run in Prefect's UI; a failure, in making it too, is only logged."""
    try:
        text = markdown if isinstance(markdown, str) else markdown()
        create_markdown_artifact(
            markdown=text, key=re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-"), description=description
        )
    except Exception as error:  # the work is done and published: a picture of it must not undo that
        _LOG.warning("artifact %s was not stored: %s", key, error)


def table(content: dict[str, object]) -> str:
    """A two-column markdown table."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in content.items())
    return f"| | |\n|---|---|\n{rows}\n"


def log(message: str) -> None:
    """A line in the current run's log (and in Prefect's UI), or in the module's log outside of a run."""
    try:
        get_run_logger().info(message)
    except MissingContextError:
        _LOG.info(message)
