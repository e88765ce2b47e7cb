"""What a fuzz target is, and what may come out of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pngmodel.errors import UserError
from tests.faults.fuzz.edits import Kind

LONGEST = 20_000
"""Characters of an error: a hostile file must not fill a terminal or a log."""


@dataclass(frozen=True)
class Target:
    """A reader of the product, and valid inputs of it."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    """Feeds one input to the reader; may write files below the target's own folder only."""
    kind: Kind = "bytes"

    def run(self, content: bytes) -> bool:
        """Read one input; whether it was accepted. Anything but a documented error in words comes out as it is."""
        try:
            self.read(content)
        except UserError as error:
            words = str(error)
            assert words, "an error without words"
            assert len(words) <= LONGEST, f"an error of {len(words)} characters: {words[:300]}"
            return False
        return True


def every(*reads: Callable[[], object]) -> None:
    """All of these, each of which may fail in words; the last failure comes out."""
    failure: UserError | None = None
    for read in reads:
        try:
            found = read()
            if isinstance(found, Iterator):
                for _ in found:
                    pass
        except UserError as error:
            failure = error
    if failure is not None:
        raise failure
