"""Markdown out of names that anybody may have chosen: cameras, scenes, licences, labels, reasons, places.

Prefect's UI, dataset hubs and code hosts render it, HTML in it included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`|*\[\]])")
_LINKS = re.compile(r"(?:https?|ftp|mailto|xmpp):|www\.|@", re.I)  # what GitHub's markdown makes links of
_TICKS = re.compile(r"`+")
_BREAKS = re.compile(r"[\r\n\t\v\f\x85\u2028\u2029]+")


def plain(value: object) -> str:
    """Text that markdown shows as it is: no tag, link, table cell or code of its own."""
    words = _BREAKS.sub(" ", str(value)).replace("&", "&amp;")
    words = _SPECIAL.sub(r"\\\1", words).replace("<", "&lt;")
    return _LINKS.sub(lambda found: found[0][:-1] + f"&#{ord(found[0][-1])};", words)


def code(value: object) -> str:
    """A code span, whatever it holds; not for cells of tables, which a ``|`` in it would end."""
    words = _BREAKS.sub(" ", str(value))
    fence = "`" * (1 + max(map(len, _TICKS.findall(words)), default=0))
    space = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{fence}{space}{words}{space}{fence}"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell is text."""
    lines = [_row(head), "|---" * len(head) + "|", *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"
