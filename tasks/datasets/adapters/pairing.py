"""Match the two sides of pairs by a key; what has no partner or comes twice is told, never dropped."""

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
"""Beside other words of a folder's name (``low_light``) these say nothing of a side."""


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
"""(key, side) of a file, or None when its name says none."""


class Pairing:
    """Paths by key and side."""

    def __init__(self) -> None:
        self.rejected: list[Unpaired] = []
        self._sides: dict[str, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._sides)

    def has(self, side: str) -> bool:
        """Whether there is any file of ``side``."""
        return any(side in found for found in self._sides.values())

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


def by_convention(paths: Sequence[str]) -> tuple[Pairing, list[str]]:
    """Pairs among files named as the field usually does, and the files whose names say no side.

    The side is a word of the name (``x_noisy.png``, ``GT_x.png``, ``x/noisy.png``), a folder (``noisy/x.png``) or
    both. Words such as ``low`` are parts of other names too, so what completes most pairs in a source comes first.
    """
    # Where something else is the noisy image, what is called noise is the residual.
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
    """Keys that have both sides."""
    named = {n for path in paths if (n := scheme(PurePosixPath(path))) is not None}
    return {key for key, _ in named if all((key, side) in named for side in SIDES)}


def _side(word: str) -> str:
    return _SIDE_OF[re.sub("[ _-]", "", word.lower())]


def _by_end(path: PurePosixPath) -> tuple[str, str] | None:
    """(key, side) by the last word of the name, or by all of it."""
    if (match := _END.fullmatch(path.stem)) is None:
        return None
    return str(path.parent / (match["rest"] or "")), _side(match["word"])


def _by_start(path: PurePosixPath) -> tuple[str, str] | None:
    """(key, side) by the first word of the name."""
    match = _START.fullmatch(path.stem)
    return None if match is None else (str(path.parent / match["rest"]), _side(match["word"]))


def _by_folder(path: PurePosixPath) -> tuple[str, str] | None:
    """(key, side) by the innermost folder that says one; its other words stay in the key (``input_crops``)."""
    folders = path.parts[:-1]
    for k in reversed(range(len(folders))):
        if (said := _said(folders[k])) is not None:
            return str(PurePosixPath(*folders[:k], said[0], *folders[k + 1 :], path.stem)), said[1]
    return None


def _said(folder: str) -> tuple[str, str] | None:
    """(other words, side) of a folder's name, or None when it says no side, or both."""
    if _WHOLE.fullmatch(folder):
        return "", _side(folder)
    sides = {_side(word) for word in _INSIDE.findall(folder)}
    rest = re.sub("[ _-]+", "_", _INSIDE.sub("", folder)).strip("_")
    return (rest, sides.pop()) if len(sides) == 1 else None


def _by_both(by_name: Scheme) -> Scheme:
    """(key, side) where a word of the name and a folder say the same."""

    def scheme(path: PurePosixPath) -> tuple[str, str] | None:
        name, folder = by_name(path), _by_folder(path)
        if name is None or folder is None or name[1] != folder[1]:
            return None
        return _by_folder(PurePosixPath(f"{name[0]}.x"))

    return scheme


_SCHEMES: tuple[Scheme, ...] = (_by_end, _by_start, _by_folder, _by_both(_by_end), _by_both(_by_start))
