"""Prefect artifacts and log messages. Errors in publishing them never fail a flow."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.reports import markdown

_LOG = logging.getLogger(__name__)
_LARGEST_PICTURE = 190_000  # characters; the UI does not display artifacts above 200 kB
WEB = "PNGNOISE_S3_WEB"
_UPDATE_SECONDS = 5.0
_LINK_SAFE = "/:@?&=%#+,;~$!*'"  # characters that are not percent-encoded in links


def _in_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def attempt(what: str, act: Callable[[], Any]) -> Any:
    """Call ``act`` and return its result. If it raises, log a warning that names ``what`` and return None."""
    try:
        return act()
    except Exception as error:  # the results are already published; a failing artifact must not fail the run
        _LOG.warning("%s failed: %s", what, error)
        return None


def _key(name: str) -> str:
    """Convert a name to an artifact key that the Prefect server accepts."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _publish(key: str, publish: Callable[[], None]) -> None:
    if _in_run():
        attempt(f"artifact {key}", publish)


def publish_markdown(key: str, page: str | Callable[[], str], description: str | None = None) -> None:
    """Publish Markdown as an artifact of the current run. Does nothing outside a run, as do all functions here.

    Args:
        key: Artifact key; normalised to lower case, digits and dashes.
        page: The Markdown text, or a function that returns it. Errors of the function are logged, not raised.
        description: Description shown in the UI.
    """

    def publish() -> None:
        text = page if isinstance(page, str) else page()
        create_markdown_artifact(markdown=text, key=_key(key), description=description)

    _publish(key, publish)


def publish_picture(key: str, picture: str | Callable[[], str], description: str) -> None:
    """Publish an image as an artifact of the current run. If it is too large for the UI, only log a warning.

    Args:
        key: Artifact key.
        picture: A ``data:`` URI, or a function that returns one.
        description: Heading and alternative text.
    """

    def page() -> str:
        uri = picture if isinstance(picture, str) else picture()
        if len(uri) > _LARGEST_PICTURE:
            raise ValueError(f"the image has {len(uri)} characters; the UI displays at most {_LARGEST_PICTURE}")
        # The UI prints the whole URI of an image artifact, about 100 kB of text for a data URI, so use Markdown.
        title = markdown.plain(description)
        return f"## {title}\n\n![{title}]({uri})\n"

    publish_markdown(key, page, description)


def publish_link(key: str, url: str, text: str) -> None:
    """Publish a link to a page or store; plain text if a browser cannot open the URL."""

    def publish() -> None:
        link = browsable(url)
        if link is None:
            create_markdown_artifact(markdown=f"{text}: {markdown.code(url)}", key=_key(key), description=text)
        else:
            # Prefect renders both as Markdown: [text](link).
            create_link_artifact(
                link=quote(link, _LINK_SAFE), link_text=markdown.plain(url), key=_key(key), description=text
            )

    _publish(key, publish)


def browsable(url: str) -> str | None:
    """Return the HTTP address of a URL, or None if a browser cannot open it (local files, ``s3://`` without a gateway).

    ``s3://bucket/key`` becomes ``$PNGNOISE_S3_WEB/bucket/key`` if that environment variable is set.
    """
    if url.startswith(("http://", "https://")):
        return url
    web = os.environ.get(WEB)
    return f"{web.rstrip('/')}/{url.removeprefix('s3://')}" if web and url.startswith("s3://") else None


def progress_artifact(key: str, description: str) -> Callable[[int, int], None]:
    """Return a callable (done, total) that updates a progress bar of the current run in Prefect's UI.

    Updates are sent at most every 5 s. Errors are logged, not raised.
    """
    artifact: UUID | None = None
    last_update = 0.0

    def update(done: int, total: int) -> None:
        nonlocal artifact, last_update
        now = time.monotonic()
        if artifact is not None and done < total and now - last_update < _UPDATE_SECONDS:
            return
        last_update = now
        share = 100.0 * done / max(total, 1)
        if artifact is None:
            artifact = attempt(
                f"artifact {key}", lambda: create_progress_artifact(share, key=_key(key), description=description)
            )
        else:
            attempt(f"artifact {key}", lambda: update_progress_artifact(artifact, share))

    return update


def table(content: dict[str, object]) -> str:
    """Format keys and values as a two-column Markdown table."""
    return markdown.table(("", ""), content.items())


def log(message: str) -> None:
    """Log ``message`` to the current Prefect run, or to this module's logger outside a run."""
    try:
        get_run_logger().info(message)
    except MissingContextError:
        _LOG.info(message)
