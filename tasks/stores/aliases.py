"""Names that mean a corpus beside them: ``corpora/latest.json`` says which corpus ``corpora/latest`` is."""

from __future__ import annotations

from pngmodel.errors import IntegrityError, TransientError, UserError
from pngmodel.jsontext import decode_json
from tasks.stores.commits import PLAN
from tasks.stores.io.filesystem import exists, join, read_if_there, write_json

_KIND = "alias"


def refuse_shadows(url: str, name: str | None) -> None:
    """Call before a corpus is made at ``url`` that is to get the alias ``name``, if any.

    Raises:
        UserError: ``url`` is an alias of another corpus, or ``name`` is the place of one: that could not be read.
    """
    if (meant := resolve_alias(url).rstrip("/")) != url.rstrip("/"):
        raise UserError(f"{url}: is an alias of {meant}; choose another output, or delete {url.rstrip('/')}.json")
    parent, _, corpus = url.rstrip("/").rpartition("/")
    if name not in (None, corpus) and exists(location := join(parent, str(name), PLAN) if parent else f"{name}/{PLAN}"):
        raise UserError(f"alias {name!r}: {location} belongs to a corpus of that name; choose another alias")


def write_alias(url: str, name: str, digest: str) -> None:
    """Let ``name``, beside the corpus at ``url``, mean that corpus from now on."""
    parent, _, corpus = url.rstrip("/").rpartition("/")
    write_json(
        f"{parent}/{name}.json" if parent else f"{name}.json", {"kind": _KIND, "corpus": corpus, "digest": digest}
    )


def resolve_alias(url: str) -> str:
    """Where the corpus lies that ``url`` means: itself, unless it is the name of an alias.

    Raises:
        IntegrityError: the alias is damaged, or names a place that is not beside it.
    """
    location = f"{url.rstrip('/')}.json"
    try:
        content = read_if_there(location)
    except TransientError:
        raise
    except UserError:  # who may not list a bucket is told "forbidden" of what is not there; the corpus itself will say
        content = None
    if content is None:
        return url
    try:
        found = decode_json(content)
        corpus = found["corpus"] if found["kind"] == _KIND else None
    except (ValueError, KeyError, TypeError):
        return url  # some file of somebody else's
    if corpus is None:
        return url
    if not isinstance(corpus, str) or "/" in corpus or "::" in corpus or corpus in ("", ".", ".."):
        raise IntegrityError(
            f"{location}: key 'corpus' is {corpus!r:.100}, no name of a folder beside it; write the alias anew"
        )
    parent = url.rstrip("/").rpartition("/")[0]
    return join(parent, corpus) if parent else corpus
