"""Which URLs are opened at all, and links on disk that lead out of a folder.

A URL may come from a stranger's file, and what a person types is kept by Prefect, in logs and in records.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pngmodel.errors import UserError

FOLLOW = "PNGNOISE_FOLLOW_LINKS"
"""1: links in folders may lead anywhere, e.g. for a dataset whose folders are spread over disks."""
LEAVES = f"is a link that leaves its folder, and is not followed; copy what it means, or set {FOLLOW}=1 if you trust it"
_SCHEMES = frozenset({"file", "local", "s3", "http", "https", "zip", "tar", "memory"})
_SERVERS = ("s3", "http", "https")
_KNOWN = "use a path, file:// or s3://"
_SECRET = re.compile(r"[?&;](?:[\w-]*(?:signature|token|secret|password|passwd|credential|key)[\w-]*|sig|sv)=", re.I)


def refuse_secrets(url: str) -> None:
    """Raise a UserError, which does not repeat it, when a URL holds a user, a password or a signature."""
    for link in url.split("::"):
        scheme, separator, rest = link.partition("://")
        if not separator:
            continue
        if (scheme in _SERVERS and "@" in rest.partition("/")[0]) or (
            scheme in ("http", "https") and _SECRET.search(rest)
        ):
            raise UserError(
                f"a URL that begins with {scheme}:// holds a user, password or signature, which would be kept in logs, "
                "parameters and records; leave it out and set the environment: AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL (and AWS_SESSION_TOKEN)"
            )


def refuse_secrets_in(value: Any) -> None:
    """:func:`refuse_secrets` of every text in nested parameters."""
    if isinstance(value, str):
        refuse_secrets(value)
    elif isinstance(value, dict):
        refuse_secrets_in([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            refuse_secrets_in(item)


def check_url(url: str) -> None:
    """Raise a UserError for a URL that holds a secret or what no path can, or is of a kind that is not opened.

    fsspec knows kinds that run templates, ask other services or write caches: a catalogue from elsewhere must not
    choose those.
    """
    if "\0" in url:
        raise UserError(f"{url!r}: holds a NUL character, which no path can; correct the path")
    refuse_secrets(url)
    chain = url.split("::")
    for number, link in enumerate(chain):
        scheme, separator, _ = link.partition("://")
        last = number == len(chain) - 1  # which alone may be a path
        if (separator or not last) and scheme not in _SCHEMES:
            raise UserError(f"{url}: this kind of URL cannot be opened ({scheme}); {_KNOWN}")


def leaves(path: str | Path, root: str | Path) -> bool:
    """Whether a local path, links followed, lies outside of a folder."""
    if os.environ.get(FOLLOW) == "1":
        return False
    real, top = os.path.realpath(path), os.path.realpath(root)
    return real != top and not real.startswith(top.rstrip(os.sep) + os.sep)
