"""Aliases of corpora: ``corpora/latest.json`` names the corpus that ``corpora/latest`` stands for."""

from __future__ import annotations

from pngmodel.errors import IntegrityError, TransientError, UserError
from pngmodel.jsontext import decode_json
from tasks.stores.commits import PLAN
from tasks.stores.io.filesystem import exists, join, read_if_there, write_json

_KIND = "alias"


def refuse_shadows(url: str, name: str | None) -> None:
    """Check output and alias of a corpus before it is made.

    Raises:
        UserError: ``url`` is an alias of another corpus, or ``name`` is the folder of one.
    """
    if (target := resolve_alias(url).rstrip("/")) != url.rstrip("/"):
        raise UserError(f"{url}: is an alias of {target}; choose another output, or delete {url.rstrip('/')}.json")
    parent, _, corpus = url.rstrip("/").rpartition("/")
    if name not in (None, corpus) and exists(location := join(parent, str(name), PLAN) if parent else f"{name}/{PLAN}"):
        raise UserError(f"alias {name!r}: {location} exists: a corpus has that name; choose another alias")


def write_alias(url: str, name: str, digest: str) -> None:
    """Make ``name`` an alias of the corpus at ``url``, in the same folder."""
    parent, _, corpus = url.rstrip("/").rpartition("/")
    write_json(
        f"{parent}/{name}.json" if parent else f"{name}.json", {"kind": _KIND, "corpus": corpus, "digest": digest}
    )


def resolve_alias(url: str) -> str:
    """The URL of a corpus, given its URL or an alias.

    Raises:
        IntegrityError: the alias is damaged, or names a corpus in another folder.
    """
    location = f"{url.rstrip('/')}.json"
    try:
        content = read_if_there(location)
    except TransientError:
        raise
    except UserError:  # without permission to list, a missing file is "forbidden"; reading the corpus reports it
        content = None
    if content is None:
        return url
    try:
        found = decode_json(content)
        corpus = found["corpus"] if found["kind"] == _KIND else None
    except (ValueError, KeyError, TypeError):
        return url  # not an alias
    if corpus is None:
        return url
    if not isinstance(corpus, str) or "/" in corpus or "::" in corpus or corpus in ("", ".", ".."):
        raise IntegrityError(
            f"{location}: key 'corpus' is {corpus!r:.100}, not the name of a folder beside it; write the alias again"
        )
    parent = url.rstrip("/").rpartition("/")[0]
    return join(parent, corpus) if parent else corpus
