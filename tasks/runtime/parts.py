"""Parts of a job for batch systems: ``--parts 2/4`` is the second of four."""

from __future__ import annotations

from pngmodel.errors import UserError


def parse_parts(parts: str) -> tuple[int, int]:
    """Part and number of parts of ``"i/n"``, i from 1.

    Raises:
        UserError: ``parts`` has another form, or i is not between 1 and n.
    """
    part, _, of = parts.partition("/")
    if not (part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise UserError(f"--parts: {parts!r} is not PART/PARTS; give for example 2/4 (1/4 is the first)")
    return int(part), int(of)
