"""The layout of a registry of model bundles on local disk or object storage (docs/formats/registry.md).

    REGISTRY/NAME/bundles/DIGEST/        the bundle's files
    REGISTRY/NAME/versions/000003.json   the bundle of version 3, written last: without it there is no version 3
    REGISTRY/NAME/evaluations/000003/SHA256.json   evaluation records of version 3
    REGISTRY/NAME/champion/000001.json   the first champion, and so on; the last one is current
    REGISTRY/NAME/champion.json          a copy of the last champion record

Files are created and never replaced, except for the copy. Of several writers of one number exactly one succeeds.
Versions are numbered, not keyed by content, so the registry does not use the commit mechanism of the stores.
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
    note: str | None = Field(description="note of the user who added it")
    added: str = Field(description="time, UTC, ISO 8601")


class Move(StrictModel):
    """champion/N.json: this version becomes the champion."""

    format: Literal["pngnoise-registry-champion"] = "pngnoise-registry-champion"
    format_version: Literal[1] = 1
    name: str
    move: int = Field(ge=1)
    action: Literal["promote", "rollback"]
    version: int = Field(ge=1)
    digest: Digest
    previous: int | None = Field(description="the previous champion")
    record: Digest = Field(description=f"{SHA256}, of the evaluation record, and its file name in evaluations/")
    rules: dict[str, Any] | None = Field(description="the promotion rules; null for a rollback")
    findings: list[dict[str, Any]] = Field(description="every metric checked: value, limit, passed")
    override: str | None = Field(description="reason for promoting although a rule failed; null if all passed")
    reason: str = Field(description="reason")
    moved: str = Field(description="time, UTC, ISO 8601")


@dataclass(frozen=True)
class VersionName:
    """The parts of ``REGISTRY/NAME@3`` or ``REGISTRY/NAME@champion``."""

    registry: str
    name: str
    which: str


def parse_version(location: str) -> VersionName | None:
    """Parse the name of a registered version; None if ``location`` is not one.

    Names end in ``@champion`` or ``@NUMBER``. To give a folder with such a name, append a slash.
    """
    registry, slash, last = location.rpartition("/")
    match = _MEANT.fullmatch(last)
    if match is None:
        return None
    return VersionName(registry or slash or ".", match["name"], match["which"])


def is_version(location: str) -> bool:
    """Whether ``location`` names a version by number. A champion may change, a number does not."""
    said = parse_version(location)
    return said is not None and said.which != CHAMPION


def check_name(name: str) -> str:
    """Validate the name of a model.

    Raises:
        UserError: it is invalid.
    """
    if _NAME.fullmatch(name) is None:
        raise UserError(f"registry: the name {name!r} is invalid; use letters, digits, '.', '_' and '-'")
    return name


class Registered:
    """One model in a registry: its versions, their evaluations, and the history of its champion."""

    def __init__(self, registry: str, name: str) -> None:
        self.registry, self.name = registry, check_name(name)
        self.url = join(registry, name)

    def location(self, number: int) -> str:
        """``REGISTRY/NAME@NUMBER``, the name of a version."""
        return f"{self.url}@{number}"

    def versions(self) -> list[int]:
        """Numbers of the versions, in order."""
        return self._numbers("versions")

    def version(self, number: int) -> Version:
        """The record of a version.

        Raises:
            UserError: there is no such version. IntegrityError: its record is damaged.
        """
        location = self._location("versions", number)
        if number not in self.versions():
            raise UserError(f"{self.url}: has no version {number}; it has {self._known()}")
        record = _read(location, Version)
        if (record.name, record.version) != (self.name, number):
            raise IntegrityError(f"{location}: is the record of {record.name}@{record.version}; it was moved or edited")
        return record

    def bundle(self, digest: str) -> str:
        """URL of a bundle's files."""
        return join(self.url, "bundles", digest)

    def moves(self) -> list[Move]:
        """The history of the champion, oldest first."""
        return [_read(self._location(CHAMPION, number), Move) for number in self._numbers(CHAMPION)]

    def champion(self) -> Move | None:
        """The current champion; None if no version was promoted."""
        numbers = self._numbers(CHAMPION)
        return _read(self._location(CHAMPION, numbers[-1]), Move) if numbers else None

    def number(self, which: str) -> int:
        """The version number of ``champion`` or of a number.

        Raises:
            UserError: no such version, or no champion.
        """
        if which != CHAMPION:
            return self.version(int(which)).version
        move = self.champion()
        if move is None:
            raise UserError(
                f"{self.url}: has no champion; it has {self._known()}; give a version, or promote one with "
                "`pngnoise registry promote`"
            )
        return move.version

    def create_version(self, record: Version) -> bool:
        """Create a version; returns False if the number is taken."""
        return self._create("versions", record.version, record)

    def create_move(self, record: Move) -> bool:
        """Change the champion; returns False if another process did so first."""
        if not self._create(CHAMPION, record.move, record):
            return False
        # The copy is for people. A writer that is late finds the newer record and writes that one.
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

    def _known(self) -> str:
        numbers = self.versions()
        return (
            f"versions {', '.join(map(str, numbers))}" if numbers else "no versions; `pngnoise registry add` makes one"
        )


def _read(location: str, model: type[Model]) -> Model:
    return read_record(location, model, FORMAT_VERSION, remedy="register the model again")


def names(registry: str) -> list[str]:
    """Names of the models that have a version, sorted."""
    found = {name.split("/")[0] for name in list_files(registry) if re.fullmatch(r"[^/]+/versions/\d{6,}\.json", name)}
    return sorted(name for name in found if _NAME.fullmatch(name))


def resolve(location: str) -> tuple[str, str] | None:
    """(URL of the bundle, its digest) of ``REGISTRY/NAME@VERSION``, None for other locations.

    Raises:
        UserError: no such version, or no champion. IntegrityError: a record is damaged.
    """
    said = parse_version(location)
    if said is None:
        return None
    registered = Registered(said.registry, said.name)
    record = registered.version(registered.number(said.which))
    return registered.bundle(record.digest), record.digest
