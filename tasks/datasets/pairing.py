"""Match the two sides of pairs by a key; what has no partner or comes twice is told, never dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from tasks.datasets.records import SIDES, Unpaired

_TOKENS = {
    "noisy": ("noisy", "real", "raw", "input", "low"),
    "clean": ("clean", "mean", "gt", "groundtruth", "ground_truth", "target", "reference", "high"),
}
_SIDE_OF = {token: side for side, tokens in _TOKENS.items() for token in tokens}
CONVENTIONS = "folders noisy/ and clean/ (or input/ and groundtruth/, ...), or names that end in _noisy and _clean"


class Pairing:
    """Paths by key and side."""

    def __init__(self) -> None:
        self.rejected: list[Unpaired] = []
        self._sides: dict[str, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._sides)

    def add(self, key: str, side: str, path: str) -> None:
        """One file; a second one for the same key and side is rejected."""
        found = self._sides.setdefault(key, {})
        if side in found:
            self.rejected.append(Unpaired(path, f"a second {side} image for pair {key!r}; {found[side]} is used"))
        else:
            found[side] = path

    def complete(self) -> Iterator[tuple[str, str, str]]:
        """(key, noisy path, clean path) of whole pairs, sorted; the others are rejected."""
        for key, found in sorted(self._sides.items()):
            missing = [side for side in SIDES if side not in found]
            if missing:
                there = next(iter(found.values()))
                self.rejected.append(Unpaired(key, f"{missing[0]} image is missing beside {there}"))
            else:
                yield key, found["noisy"], found["clean"]


def by_convention(path: str) -> tuple[str, str] | None:
    """(key, side) of a file named as the field usually does, or None.

    The side is the end of the name (``x_noisy.png``), its start (``GT_x.png``) or a folder (``noisy/x.png``).
    """
    whole = PurePosixPath(path)
    stem = whole.stem
    for separator in ("_", "-"):
        head, _, tail = stem.rpartition(separator)
        if head and tail.lower() in _SIDE_OF:
            return str(whole.with_name(head)), _SIDE_OF[tail.lower()]
        head, _, tail = stem.partition(separator)
        if tail and head.lower() in _SIDE_OF:
            return str(whole.with_name(tail)), _SIDE_OF[head.lower()]
    folders = whole.parts[:-1]
    for k in reversed(range(len(folders))):
        if (side := _SIDE_OF.get(folders[k].lower())) is not None:
            return str(PurePosixPath(*folders[:k], *folders[k + 1 :], stem)), side
    return None
