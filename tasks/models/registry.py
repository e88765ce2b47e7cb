"""Versions of models in a registry: add, list, show, fetch. :mod:`tasks.models.promotion` selects the champion."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pngmodel.bundle import CARD, bundle_config, verify_bundle
from pngmodel.errors import IntegrityError, UserError
from tasks.models.generators import bundle_folder
from tasks.runtime.artifacts import log
from tasks.runtime.steps import step
from tasks.stores.commits import SIGNATURE
from tasks.stores.io.filesystem import create_bytes, exists, join, local_path, read_bytes, sha256, write_if_other
from tasks.stores.io.listing import list_files
from tasks.stores.model_registry import Registered, Version, check_name, names, parse_version

KINDS = ("pngnoise-model", "pngnoise-denoiser", "pngnoise-baseline")
"""Formats of bundles that can be registered."""
_RACES = 100  # versions that others may add while one is being added


def named(location: str) -> Registered:
    """The model that ``REGISTRY/NAME`` means.

    Raises:
        UserError: it is no such name.
    """
    registry, slash, name = location.rstrip("/").rpartition("/")
    if parse_version(location) is not None:
        raise UserError(
            f"{location}: a model is asked for, not a version; leave out {location[location.rindex('@') :]!r}"
        )
    return Registered(registry or slash or ".", check_name(name))


def versioned(location: str) -> tuple[Registered, Version]:
    """The version that ``REGISTRY/NAME@3`` or ``REGISTRY/NAME@champion`` means.

    Raises:
        UserError: it is no such name, or there is no such version.
    """
    said = parse_version(location)
    if said is None:
        raise UserError(
            f"{location}: names no version; write {location.rstrip('/')}@3 or {location.rstrip('/')}@champion"
        )
    registered = Registered(said.registry, said.name)
    return registered, registered.version(registered.number(said.which))


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_version(bundle: str, location: str, note: str | None = None) -> dict[str, Any]:
    """Put a bundle into a registry as the next version of ``REGISTRY/NAME``, or find it there.

    Its files are published before the version's record. Several processes may add at once; those of one digest get one
    version. Damaged files of a version that is there are made whole by the bundle that is added again.

    Args:
        bundle: ``shipped``, a bundle's folder or URL, or another version of a registry.
        place: ``REGISTRY/NAME``.
        note: kept in the version's record.

    Raises:
        UserError: not a bundle, or of another kind than the name's first version. IntegrityError: it is damaged.
    """
    registered = named(location)
    folder = bundle_folder(bundle)
    digest = verify_bundle(folder)
    kind = str(bundle_config(folder).get("format"))
    if kind not in KINDS:
        raise UserError(f"{bundle}: config.json has format {kind!r}; a registry holds {', '.join(KINDS)}")
    known: list[Version] = []
    for _ in range(_RACES):
        numbers = registered.versions()
        known += [registered.version(number) for number in numbers[len(known) :]]
        there = next((version for version in known if version.digest == digest), None)
        if there is not None:
            _upload(folder, registered.bundle(digest))
            return _facts(registered, there) | {"added": False}
        if known and known[0].kind != kind:
            raise UserError(
                f"{registered.url}: holds bundles of kind {known[0].kind!r}, {bundle} is a {kind!r}; choose another "
                "name"
            )
        record = Version(
            name=registered.name,
            version=(numbers[-1] if numbers else 0) + 1,
            digest=digest,
            kind=kind,
            files=_upload(folder, registered.bundle(digest)),
            note=note,
            added=now(),
        )
        if registered.create_version(record):
            return _facts(registered, record) | {"added": True}
    raise UserError(f"{registered.url}: others add versions all the time; run the same command again")


def add_trained(bundle: str, location: str, note: str | None = None) -> str:
    """:func:`add_version` at the end of a training; returns ``REGISTRY/NAME@NUMBER``, what flows take as a model."""
    added = add_version(bundle, location, note)
    log(f"{added['name']}: digest {added['digest']}" + ("" if added["added"] else ", was there already"))
    return named(location).location(int(added["name"].rpartition("@")[2]))


def _upload(folder: Path, url: str) -> dict[str, str]:
    """Publish a bundle's files, those that make its digest as they are; returns sha256 by name of what lies there.

    The card and a signature are no part of the digest: those of the first writer stay.
    """
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        if path.name in (CARD, SIGNATURE):
            create_bytes(join(url, path.name), path.read_bytes())
        else:
            write_if_other(join(url, path.name), path.read_bytes())
    return {
        name: sha256(read_bytes(join(url, name)))
        for name in list_files(url)
        if not name.startswith(".") and name != SIGNATURE
    }


def check_files(registered: Registered, version: Version) -> None:
    """Compare a version's files with its record.

    Raises:
        IntegrityError: names each file that is missing or differs.
    """
    url = registered.bundle(version.digest)
    problems = []
    for name, digest in version.files.items():
        if not exists(join(url, name)):
            problems.append(f"{name} is missing")
        elif sha256(read_bytes(join(url, name))) != digest:
            problems.append(f"{name} differs from the record")
    if problems:
        raise IntegrityError(
            f"{url}: {registered.name}@{version.version} is damaged: {', '.join(problems)}; add the same bundle again"
        )


def list_models(registry: str) -> list[dict[str, Any]]:
    """Every name with its kind, newest version, and champion."""
    found = []
    for name in names(registry):
        registered = Registered(registry, name)
        versions, move = registered.versions(), registered.champion()
        newest = registered.version(versions[-1])
        champion = None if move is None else {"version": move.version, "digest": move.digest, "moved": move.moved}
        found.append({"name": name, "kind": newest.kind, "versions": len(versions), "newest": newest.version})
        found[-1] |= {"newest_digest": newest.digest, "champion": champion}
    return found


def show_model(location: str) -> dict[str, Any]:
    """Versions and the champion's moves of ``REGISTRY/NAME``, or all that is known of one of its versions.

    Raises:
        UserError: there is no such model or version.
    """
    if parse_version(location) is not None:
        registered, version = versioned(location)
        url = registered.bundle(version.digest)
        evaluations = registered.evaluations(version.version)
        facts = _facts(registered, version) | {"url": url, "evaluations": evaluations}
        return facts | {"files": version.files}
    registered = named(location)
    numbers = registered.versions()
    if not numbers:
        raise UserError(f"{registered.url}: holds no version; `pngnoise registry add BUNDLE {location}` makes one")
    moves = registered.moves()
    return {
        "name": registered.name,
        "champion": moves[-1].version if moves else None,
        "versions": [_facts(registered, registered.version(number)) for number in numbers],
        "moves": [move.model_dump(mode="json", exclude={"format", "format_version", "name"}) for move in moves],
    }


def _facts(registered: Registered, version: Version) -> dict[str, Any]:
    facts = {"name": f"{registered.name}@{version.version}", "digest": version.digest, "kind": version.kind}
    return facts | {"note": version.note, "since": version.added, "registry": registered.registry}


def fetch_version(location: str, output: str) -> dict[str, Any]:
    """Copy a version to a local folder, whole or not at all; every file is compared with the version's record.

    Raises:
        UserError: no such version, or the folder holds something else. IntegrityError: the version is damaged.
    """
    registered, version = versioned(location)
    target = local_path(output)
    if target is None:
        raise UserError(f"{output}: a version is fetched to a local folder; give a path")
    facts = _facts(registered, version) | {"folder": str(target)}
    if target.exists() and any(target.iterdir()):
        if (target / "digest.json").is_file() and verify_bundle(target) == version.digest:
            return facts
        raise UserError(f"{target}: holds something else; choose an empty folder")
    check_files(registered, version)
    working = target.with_name(f".{target.name}.fetching")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    for name in version.files:
        (working / name).write_bytes(read_bytes(join(registered.bundle(version.digest), name)))
    verify_bundle(working)
    if target.exists():
        target.rmdir()
    working.replace(target)
    return facts


task_add_trained = step("register")(add_trained)
