"""A registry of model bundles on disk or object storage: what lies where (docs/formats/registry.md), how it is read.

    REGISTRY/NAME/bundles/DIGEST/        the bundle's files
    REGISTRY/NAME/versions/000003.json   which bundle version 3 is, written last: without it there is no version 3
    REGISTRY/NAME/evaluations/000003/SHA256.json   evaluation records of version 3
    REGISTRY/NAME/champion/000001.json   the first move of the alias, and so on; the last one counts
    REGISTRY/NAME/champion.json          a copy of the last move

Files are created, never replaced, but for the copy. Of several writers that want one number one gets it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from pngmodel.errors import IntegrityError, UserError
from tasks.stores.commits import SHA256, StrictModel, read_record
from tasks.stores.io.filesystem import create_bytes, encode_json, join, read_bytes, read_json, sha256, write_json
from tasks.stores.io.listing import list_files
from tasks.stores.io.relative_path import Digest, RelativePath

Model = TypeVar("Model", bound=BaseModel)
CHAMPION = "champion"
FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MEANT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<which>champion|[1-9]\d*)")
_NUMBERED = re.compile(r"(\d{6,})\.json")


class Version(StrictModel):
    """versions/N.json."""

    format: Literal["pngnoise-registry-version"] = "pngnoise-registry-version"
    format_version: Literal[1] = 1
    name: str
    version: int = Field(ge=1)
    digest: Digest = Field(description="the bundle's digest, which is its folder's name too")
    kind: str = Field(description="the format of the bundle, e.g. pngnoise-model")
    files: dict[RelativePath, str] = Field(description=f"{SHA256}, of every file of the bundle, by name")
    note: str | None = Field(description="what whoever added it wanted to say")
    added: str = Field(description="time, UTC, ISO 8601")


class Move(StrictModel):
    """champion/N.json: from then on this version is the champion."""

    format: Literal["pngnoise-registry-champion"] = "pngnoise-registry-champion"
    format_version: Literal[1] = 1
    name: str
    move: int = Field(ge=1)
    action: Literal["promote", "rollback"]
    version: int = Field(ge=1)
    digest: Digest
    previous: int | None = Field(description="the version that was champion before")
    record: Digest = Field(description=f"{SHA256}, of the evaluation record, which is its name in evaluations/ too")
    rules: dict[str, Any] | None = Field(description="the gate that it had to pass; null: it passed when promoted")
    findings: list[dict[str, Any]] = Field(description="every figure that was looked at: value, limit, passed")
    override: str | None = Field(description="why it moved although the gate failed; null: it passed")
    reason: str = Field(description="why it moved")
    moved: str = Field(description="time, UTC, ISO 8601")


@dataclass(frozen=True)
class VersionName:
    """What ``REGISTRY/NAME@3`` or ``REGISTRY/NAME@champion`` says."""

    registry: str
    name: str
    which: str


def meant(location: str) -> VersionName | None:
    """A version of a registry by its name, or None where ``location`` is no such name.

    Names end in ``@champion`` or ``@NUMBER``, with nothing behind; a folder that is called so is written with a slash.
    """
    registry, slash, last = location.rpartition("/")
    match = _MEANT.fullmatch(last)
    if match is None:
        return None
    return VersionName(registry or slash or ".", match["name"], match["which"])


def is_version(location: str) -> bool:
    """Whether ``location`` names one version for good: by its number, and not as the champion of the day."""
    said = meant(location)
    return said is not None and said.which != CHAMPION


def check_name(name: str) -> str:
    """The name of a model, if it can be one.

    Raises:
        UserError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise UserError(f"registry: the name {name!r} cannot be used; letters, digits, '.', '_' and '-' can")
    return name


class Registered:
    """One name in a registry: its versions, their evaluations, and the moves of its champion."""

    def __init__(self, registry: str, name: str) -> None:
        self.registry, self.name = registry, check_name(name)
        self.url = join(registry, name)

    def location(self, number: int) -> str:
        """``REGISTRY/NAME@NUMBER``: what is given where a model is asked for."""
        return f"{self.url}@{number}"

    def versions(self) -> list[int]:
        """Numbers of the versions, in order."""
        return self._numbers("versions")

    def version(self, number: int) -> Version:
        """The record of a version.

        Raises:
            UserError: there is none of that number. IntegrityError: it is damaged.
        """
        location = self._location("versions", number)
        if number not in self.versions():
            raise UserError(f"{self.url}: has no version {number}; there are {self._told()}")
        record = _read(location, Version)
        if (record.name, record.version) != (self.name, number):
            raise IntegrityError(f"{location}: says that it is {record.name}@{record.version}; it was moved or edited")
        return record

    def bundle(self, digest: str) -> str:
        """Where a bundle's files lie."""
        return join(self.url, "bundles", digest)

    def moves(self) -> list[Move]:
        """Every move of the champion, the first one first."""
        return [_read(self._location(CHAMPION, number), Move) for number in self._numbers(CHAMPION)]

    def champion(self) -> Move | None:
        """The last move, or None where nothing was promoted yet."""
        numbers = self._numbers(CHAMPION)
        return _read(self._location(CHAMPION, numbers[-1]), Move) if numbers else None

    def number(self, which: str) -> int:
        """The version that ``champion`` or a number means.

        Raises:
            UserError: no such version, or no champion.
        """
        if which != CHAMPION:
            return self.version(int(which)).version
        move = self.champion()
        if move is None:
            raise UserError(
                f"{self.url}: has no champion; there are {self._told()}; name one, or `pngnoise registry promote` it"
            )
        return move.version

    def create_version(self, record: Version) -> bool:
        """Publish a version unless one of that number is there."""
        return self._create("versions", record.version, record)

    def create_move(self, record: Move) -> bool:
        """Move the champion unless another move of that number was made meanwhile."""
        if not self._create(CHAMPION, record.move, record):
            return False
        # The copy is for people: whoever writes an old one late sees the newer move and writes that.
        shown = record
        while True:
            write_json(join(self.url, f"{CHAMPION}.json"), shown.model_dump(mode="json"))
            last = self.champion()
            if last is None or last.move == shown.move:
                return True
            shown = last

    def keep_evaluation(self, number: int, content: bytes) -> str:
        """Store an evaluation record of a version; returns its sha256."""
        digest = sha256(content)
        create_bytes(self._evaluation(number, digest), content)
        return digest

    def evaluations(self, number: int) -> list[str]:
        """sha256 of the stored evaluation records of a version."""
        found = list_files(join(self.url, "evaluations", f"{number:06d}"))
        return [name.removesuffix(".json") for name in found if name.endswith(".json") and "/" not in name]

    def evaluation(self, number: int, digest: str) -> dict[str, Any]:
        """A stored evaluation record.

        Raises:
            UserError: it is not there. IntegrityError: it is damaged.
        """
        location = self._evaluation(number, digest)
        if sha256(read_bytes(location)) != digest:
            raise IntegrityError(f"{location}: sha256 differs from its name; it was edited or is damaged")
        return read_json(location)

    def _evaluation(self, number: int, digest: str) -> str:
        return join(self.url, "evaluations", f"{number:06d}", f"{digest}.json")

    def _location(self, kind: str, number: int) -> str:
        return join(self.url, kind, f"{number:06d}.json")

    def _numbers(self, kind: str) -> list[int]:
        names = list_files(join(self.url, kind))
        return sorted(int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name)))

    def _create(self, kind: str, number: int, record: BaseModel) -> bool:
        return create_bytes(self._location(kind, number), encode_json(record.model_dump(mode="json")))

    def _told(self) -> str:
        numbers = self.versions()
        return (
            f"versions {', '.join(map(str, numbers))}" if numbers else "no versions; `pngnoise registry add` makes one"
        )


def _read(location: str, model: type[Model]) -> Model:
    return read_record(location, model, FORMAT_VERSION, remedy="register the model again")


def names(registry: str) -> list[str]:
    """Names that have a version, sorted."""
    found = {name.split("/")[0] for name in list_files(registry) if re.fullmatch(r"[^/]+/versions/\d{6,}\.json", name)}
    return sorted(name for name in found if _NAME.fullmatch(name))


def resolve(location: str) -> tuple[str, str] | None:
    """(URL of the bundle, its digest) of ``REGISTRY/NAME@VERSION``, or None where ``location`` is no such name.

    Raises:
        UserError: no such version, or no champion. IntegrityError: a record is damaged.
    """
    said = meant(location)
    if said is None:
        return None
    registered = Registered(said.registry, said.name)
    record = registered.version(registered.number(said.which))
    return registered.bundle(record.digest), record.digest
