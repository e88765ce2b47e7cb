"""Which kind of store is at a location: the one place that knows all commit records."""

from __future__ import annotations

from pngmodel.errors import UserError
from tasks.stores.commits import PLAN
from tasks.stores.io.filesystem import exists, join, read_json

COMMITS = {
    "corpus": "corpus.json",
    "patch store": "store.json",
    "catalogue": "catalogue.json",
    "prompt bank": "bank.json",
    "export": "export.json",
    "model bundle": "digest.json",
}
"""Commit record by kind of store."""
EXPORT_FOLDER = ".export/"
"""Folder of plan and parts of an export, hidden so that users see their own files only."""


def find_kind(url: str) -> str | None:
    """Kind of the committed store at ``url``; None if there is none."""
    return next((kind for kind, commit in COMMITS.items() if exists(join(url, commit))), None)


def is_kind(url: str, kind: str) -> bool:
    """Whether a committed store of this kind is at ``url``. One request."""
    return exists(join(url, COMMITS[kind]))


def kind_of(url: str) -> str:
    """Kind of the committed store at ``url``.

    Raises:
        UserError: there is no store, or it is not finished.
    """
    kind = find_kind(url)
    if kind is not None:
        return kind
    plan = next((plan for plan in (PLAN, EXPORT_FOLDER + PLAN) if exists(join(url, plan))), None)
    if plan is not None:
        unfinished = read_json(join(url, plan)).get("kind", "store")
        raise UserError(
            f"{url}: this {unfinished} is unfinished, its commit record is missing; run the same command again"
        )
    raise UserError(f"{url}: contains no {', '.join(list(COMMITS)[:-1])} or model bundle; check the path")


def planned_kind(url: str) -> str:
    """Kind of the store whose plan is at ``url``, finished or not.

    Raises:
        UserError: there is no plan.
    """
    location = join(url, PLAN)
    if not exists(location):
        raise UserError(f"{location}: missing; no store was started at {url}, check the path")
    return str(read_json(location).get("kind"))
