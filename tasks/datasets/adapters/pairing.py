"""Matches noisy and clean files by a key. Files without a counterpart and duplicates are reported as rejected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from tasks.datasets.records import SIDES, Unpaired

_WORDS = {
    "noisy": ("noisy", "noise", "real", "raw", "input", "low", "lq", "degraded"),
    "clean": ("clean", "mean", "gt", "groundtruth", "target", "reference", "high", "hq"),
}
_SIDE_OF = {word: side for side, words in _WORDS.items() for word in words}
_VAGUE = ("low", "high", "real", "raw", "mean")
"""Words that do not indicate a side if the folder name has other words, e.g. ``low_light``."""


def _any_of(words: Iterable[str]) -> str:
    return "|".join(words).replace("groundtruth", "ground[ _-]?truth")


_ANY = _any_of(_SIDE_OF)
_END = re.compile(rf"(?:(?P<rest>.+)[ _-])?(?P<word>{_ANY})", re.IGNORECASE)
_START = re.compile(rf"(?P<word>{_ANY})[ _-](?P<rest>.+)", re.IGNORECASE)
_WHOLE = re.compile(_ANY, re.IGNORECASE)
_INSIDE = re.compile(rf"(?<![^ _-])(?:{_any_of(w for w in _SIDE_OF if w not in _VAGUE)})(?![^ _-])", re.IGNORECASE)
_RESIDUAL = re.compile(r"(?<![^ /_-])noise(?![^ /._-])", re.IGNORECASE)
CONVENTIONS = (
    "folders noisy/ and clean/ (or input/ and groundtruth/, LQ/ and GT/, ...), or names that end in _noisy and _clean"
)


Scheme = Callable[[PurePosixPath], tuple[str, str] | None]
"""Returns (key, side) of a file, or None if its name does not indicate a side."""


class Pairing:
    """Collects paths by key and side."""

    def __init__(self) -> None:
        self.rejected: list[Unpaired] = []
        self._sides: dict[str, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._sides)

    def has(self, side: str) -> bool:
        """Return whether there are files of ``side``."""
        return any(side in found for found in self._sides.values())

    def add(self, key: str, side: str, path: str) -> None:
        """Add a file. A second file with the same key and side is rejected."""
        found = self._sides.setdefault(key, {})
        if side in found:
            self.rejected.append(Unpaired(path, f"duplicate {side} image of pair {key!r}; {found[side]} is used"))
        else:
            found[side] = path

    def complete(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, noisy path, clean path) of complete pairs, sorted by key. Incomplete pairs are rejected."""
        for key, found in sorted(self._sides.items()):
            missing = [side for side in SIDES if side not in found]
            if missing:
                present = next(iter(found.values()))
                self.rejected.append(Unpaired(key, f"the {missing[0]} image of {present} is missing"))
            else:
                yield key, found["noisy"], found["clean"]


def by_convention(paths: Sequence[str]) -> tuple[Pairing, list[str]]:
    """Pair files by common naming conventions; return also the files whose names do not indicate a side.

    The side is a word of the file name (``x_noisy.png``, ``GT_x.png``, ``x/noisy.png``), a folder (``noisy/x.png``) or
    both. Words such as ``low`` also occur in other names, so the scheme that completes most pairs is applied first.
    """
    # Files named noise are residuals if there is another noisy image, so they come last.
    pairing, left = Pairing(), sorted(paths, key=lambda path: _RESIDUAL.search(path) is not None)
    for scheme in sorted(_SCHEMES, key=lambda scheme: -len(_whole(scheme, paths))):
        whole = _whole(scheme, left)
        for path in left:
            if (named := scheme(PurePosixPath(path))) is not None and named[0] in whole:
                pairing.add(*named, path)
        left = [p for p in left if (named := scheme(PurePosixPath(p))) is None or named[0] not in whole]
    others = []
    for path in left:
        named = next((n for scheme in _SCHEMES if (n := scheme(PurePosixPath(path))) is not None), None)
        if named is None:
            others.append(path)
        else:
            pairing.add(*named, path)
    return pairing, others


def _whole(scheme: Scheme, paths: Sequence[str]) -> set[str]:
    """Return the keys with both sides."""
    named = {n for path in paths if (n := scheme(PurePosixPath(path))) is not None}
    return {key for key, _ in named if all((key, side) in named for side in SIDES)}


def _side(word: str) -> str:
    return _SIDE_OF[re.sub("[ _-]", "", word.lower())]


def _by_end(path: PurePosixPath) -> tuple[str, str] | None:
    """Return (key, side) by the last word of the file name, or the whole name."""
    if (match := _END.fullmatch(path.stem)) is None:
        return None
    return str(path.parent / (match["rest"] or "")), _side(match["word"])


def _by_start(path: PurePosixPath) -> tuple[str, str] | None:
    """Return (key, side) by the first word of the file name."""
    match = _START.fullmatch(path.stem)
    return None if match is None else (str(path.parent / match["rest"]), _side(match["word"]))


def _by_folder(path: PurePosixPath) -> tuple[str, str] | None:
    """Return (key, side) by the innermost folder that indicates a side; its other words (``input_crops``) stay in the
    key."""
    folders = path.parts[:-1]
    for k in reversed(range(len(folders))):
        if (parsed := _parse_folder(folders[k])) is not None:
            return str(PurePosixPath(*folders[:k], parsed[0], *folders[k + 1 :], path.stem)), parsed[1]
    return None


def _parse_folder(folder: str) -> tuple[str, str] | None:
    """Return (other words, side) of a folder name, or None if it indicates no side or both."""
    if _WHOLE.fullmatch(folder):
        return "", _side(folder)
    sides = {_side(word) for word in _INSIDE.findall(folder)}
    rest = re.sub("[ _-]+", "_", _INSIDE.sub("", folder)).strip("_")
    return (rest, sides.pop()) if len(sides) == 1 else None


def _by_both(by_name: Scheme) -> Scheme:
    """Return a scheme that requires the same side from a word of the file name and from a folder."""

    def scheme(path: PurePosixPath) -> tuple[str, str] | None:
        name, folder = by_name(path), _by_folder(path)
        if name is None or folder is None or name[1] != folder[1]:
            return None
        return _by_folder(PurePosixPath(f"{name[0]}.x"))

    return scheme


_SCHEMES: tuple[Scheme, ...] = (_by_end, _by_start, _by_folder, _by_both(_by_end), _by_both(_by_start))
