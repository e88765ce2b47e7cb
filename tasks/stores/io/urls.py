"""Checks of URLs and symbolic links.

URLs may come from untrusted files, and URLs that users type are kept by Prefect, in logs and in records.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pngmodel.errors import UserError

FOLLOW = "PNGNOISE_FOLLOW_LINKS"
"""1: follow symbolic links out of a folder, for datasets that are spread over disks."""
LEAVES = f"is a symbolic link out of its folder and is not followed; copy its target, or set {FOLLOW}=1 if you trust it"
_SCHEMES = frozenset({"file", "local", "s3", "http", "https", "zip", "tar", "memory"})
_SERVERS = ("s3", "http", "https")
_KNOWN = "use a path, file:// or s3://"
_SECRET = re.compile(r"[?&;](?:[\w-]*(?:signature|token|secret|password|passwd|credential|key)[\w-]*|sig|sv)=", re.I)


def refuse_secrets(url: str) -> None:
    """Raise a UserError if a URL contains a user, password or signature. The message does not repeat it."""
    for link in url.split("::"):
        scheme, separator, rest = link.partition("://")
        if not separator:
            continue
        if (scheme in _SERVERS and "@" in rest.partition("/")[0]) or (
            scheme in ("http", "https") and _SECRET.search(rest)
        ):
            raise UserError(
                f"a URL that begins with {scheme}:// contains a user, password or signature, which would be kept in "
                "logs, parameters and records; remove it and set environment variables: AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL (and AWS_SESSION_TOKEN)"
            )


def refuse_secrets_in(value: Any) -> None:
    """Apply :func:`refuse_secrets` to every string in nested parameters."""
    if isinstance(value, str):
        refuse_secrets(value)
    elif isinstance(value, dict):
        refuse_secrets_in([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            refuse_secrets_in(item)


def check_url(url: str) -> None:
    """Raise a UserError for a URL with secrets, invalid characters or an unsupported scheme.

    Some fsspec schemes run templates, call other services or write caches; an untrusted catalogue must not choose them.
    """
    if "\0" in url:
        raise UserError(f"{url!r}: contains a NUL character; correct the path")
    refuse_secrets(url)
    chain = url.split("::")
    for number, link in enumerate(chain):
        scheme, separator, _ = link.partition("://")
        last = number == len(chain) - 1  # only the last one may be a path
        if (separator or not last) and scheme not in _SCHEMES:
            raise UserError(f"{url}: unsupported scheme {scheme!r}; {_KNOWN}")


def leaves(path: str | Path, root: str | Path) -> bool:
    """Whether a local path, with links resolved, is outside of a folder."""
    if os.environ.get(FOLLOW) == "1":
        return False
    real, top = os.path.realpath(path), os.path.realpath(root)
    return real != top and not real.startswith(top.rstrip(os.sep) + os.sep)
