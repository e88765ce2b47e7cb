"""Commit records: what is written last, and is read first of anything that the product makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.io.filesystem import exists, join, read_json

_SHOWN = 200  # characters of a key, which may be anybody's
SIGNATURE = "signature.json"
"""Lies beside a commit record, where somebody vouches for it (:mod:`tasks.corpus.signatures`); part of no digest."""
Model = TypeVar("Model", bound=BaseModel)


def open_commit(
    url: str, name: str, model: type[Model], version: int, *, absent: str | Callable[[], str], remedy: str
) -> Model:
    """The commit record ``name`` of what lies at ``url``, checked: there, of this format version, complete.

    Args:
        url: folder or prefix.
        name: the record's file.
        model: what it has to be.
        version: the format version that is read.
        absent: what to say when it is missing.
        remedy: how to have one of this version.

    Raises:
        UserError: it is absent, or of another version. IntegrityError: it is damaged.
    """
    location = join(url, name)
    if not exists(location):
        raise UserError(f"{location}: missing: {absent if isinstance(absent, str) else absent()}")
    content = read_json(location)
    found: Any = content.get("format_version")
    if isinstance(found, int) and found != version:
        advice = "update pngnoise" if found > version else remedy
        raise UserError(
            f"{location}: key 'format_version' is {found}, this version of pngnoise reads {version}; {advice}"
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:_SHOWN] or "the record"
        raise IntegrityError(f"{location}: key '{where}': {first['msg']}; it is damaged, {remedy}") from None
