"""Prefect artifacts and logs that can never fail a flow, and when a task is worth another try."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from pngmodel.errors import TransientError

_LOG = logging.getLogger(__name__)
_TELL_EVERY_SECONDS = 5.0


def publish_markdown(key: str, markdown: str | Callable[[], str], description: str | None = None) -> None:
    """Show ``markdown`` with the current run in Prefect's UI; a failure, in making it too, is only logged."""
    try:
        text = markdown if isinstance(markdown, str) else markdown()
        create_markdown_artifact(
            markdown=text, key=re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-"), description=description
        )
    except Exception as error:  # the work is done and published: a picture of it must not undo that
        _LOG.warning("artifact %s was not stored: %s", key, error)


def progress_artifact(key: str, description: str) -> Callable[[int, int], None]:
    """A progress bar with the current run in Prefect's UI: a callable (done, total); its failure is only logged."""
    artifact: UUID | None = None
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal artifact, told
        now = time.monotonic()
        if artifact is not None and done < total and now - told < _TELL_EVERY_SECONDS:
            return
        told = now
        share = 100.0 * done / max(total, 1)
        try:
            if artifact is None:
                artifact = cast(UUID, create_progress_artifact(share, key=key, description=description))
            else:
                update_progress_artifact(artifact, share)
        except Exception as error:
            _LOG.warning("artifact %s was not stored: %s", key, error)

    return tell


def may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    """Condition for a retry: what failed the task lies outside and may be over soon."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:
        return False
    return False


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
