"""Markdown escaping of untrusted text: names of cameras and scenes, licences, labels, error reasons and paths.

Prefect's UI, dataset hubs and code hosts render Markdown, including embedded HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`|*\[\]])")
_LINKS = re.compile(r"(?:https?|ftp|mailto|xmpp):|www\.|@", re.I)  # GitHub turns these into links
_TICKS = re.compile(r"`+")
_BREAKS = re.compile(r"[\r\n\t\v\f\x85\u2028\u2029]+")


def plain(value: object) -> str:
    """Escape ``value`` so that Markdown renders it literally, without tags, links, table cells or code spans."""
    text = _BREAKS.sub(" ", str(value)).replace("&", "&amp;")
    text = _SPECIAL.sub(r"\\\1", text).replace("<", "&lt;")
    return _LINKS.sub(lambda match: match[0][:-1] + f"&#{ord(match[0][-1])};", text)


def code(value: object) -> str:
    """Format ``value`` as a code span. Do not use it in table cells: a ``|`` in the value would end the cell."""
    text = _BREAKS.sub(" ", str(value))
    fence = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table. All cells are escaped."""
    lines = [_row(head), "|---" * len(head) + "|", *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"
