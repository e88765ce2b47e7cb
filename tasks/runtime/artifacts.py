"""Prefect artifacts and logs that can never fail a flow."""

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
_LARGEST_PICTURE = 190_000  # characters; beyond 200 kB the UI shows none
WEB = "PNGNOISE_S3_WEB"
_TELL_EVERY_SECONDS = 5.0
_OF_LINKS = "/:@?&=%#+,;~$!*'"  # stay as they are in a link


def _in_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def attempt(what: str, act: Callable[[], Any]) -> Any:
    """Do what a run can do without; a failure is only logged, and None returned."""
    try:
        return act()
    except Exception as error:  # the work is done and published: a picture of it must not undo that
        _LOG.warning("%s failed: %s", what, error)
        return None


def _key(name: str) -> str:
    """What the server takes as a key."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _publish(key: str, publish: Callable[[], None]) -> None:
    if _in_run():
        attempt(f"artifact {key}", publish)


def publish_markdown(key: str, page: str | Callable[[], str], description: str | None = None) -> None:
    """Show ``page``, markdown, with the current run in Prefect's UI; a failure, in making it too, is only logged.
    Outside of a run nothing happens, as with all artifacts."""

    def publish() -> None:
        text = page if isinstance(page, str) else page()
        create_markdown_artifact(markdown=text, key=_key(key), description=description)

    _publish(key, publish)


def publish_picture(key: str, picture: str | Callable[[], str], description: str) -> None:
    """Show a picture, a ``data:`` URI, with the current run; left out, with a line in the log, where it is too large
    for the UI."""

    def page() -> str:
        uri = picture if isinstance(picture, str) else picture()
        if len(uri) > _LARGEST_PICTURE:
            raise ValueError(f"{len(uri)} characters are more than the {_LARGEST_PICTURE} that the UI shows")
        # Of an artifact of kind image the UI prints the whole URI, and a data URI is a hundred kilobytes of letters.
        told = markdown.plain(description)
        return f"## {told}\n\n![{told}]({uri})\n"

    publish_markdown(key, page, description)


def publish_link(key: str, url: str, text: str) -> None:
    """Show a link to a page or store, where a browser can follow it; else its URL as text."""

    def publish() -> None:
        link = browsable(url)
        if link is None:
            create_markdown_artifact(markdown=f"{text}: {markdown.code(url)}", key=_key(key), description=text)
        else:
            # Prefect makes markdown of both: [text](link).
            create_link_artifact(
                link=quote(link, _OF_LINKS), link_text=markdown.plain(url), key=_key(key), description=text
            )

    _publish(key, publish)


def browsable(url: str) -> str | None:
    """The ``http`` address of a URL, or None: a browser opens no local file from a page of a server.

    Of ``s3://bucket/key`` it is ``PNGNOISE_S3_WEB/bucket/key``: the address at which browsers reach the storage.
    """
    if url.startswith(("http://", "https://")):
        return url
    web = os.environ.get(WEB)
    return f"{web.rstrip('/')}/{url.removeprefix('s3://')}" if web and url.startswith("s3://") else None


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
        if artifact is None:
            artifact = attempt(
                f"artifact {key}", lambda: create_progress_artifact(share, key=_key(key), description=description)
            )
        else:
            attempt(f"artifact {key}", lambda: update_progress_artifact(artifact, share))

    return tell


def table(content: dict[str, object]) -> str:
    """A two-column markdown table."""
    return markdown.table(("", ""), content.items())


def log(message: str) -> None:
    """A line in the current run's log (and in Prefect's UI), or in the module's log outside of a run."""
    try:
        get_run_logger().info(message)
    except MissingContextError:
        _LOG.info(message)
