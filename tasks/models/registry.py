"""Model versions in a registry: add, list, show, fetch. :mod:`tasks.models.promotion` selects the champion."""

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
"""Bundle formats that a registry accepts."""
_RACES = 100  # versions that other processes may add while one is being added


def parse_model_name(location: str) -> Registered:
    """Parse ``REGISTRY/NAME``.

    Raises:
        UserError: The name is invalid or has a version.
    """
    registry, slash, name = location.rstrip("/").rpartition("/")
    if parse_version(location) is not None:
        raise UserError(f"{location}: expected REGISTRY/NAME; remove {location[location.rindex('@') :]!r}")
    return Registered(registry or slash or ".", check_name(name))


def parse_version_name(location: str) -> tuple[Registered, Version]:
    """Parse ``REGISTRY/NAME@3`` or ``REGISTRY/NAME@champion`` and read the version.

    Raises:
        UserError: The name is invalid, or there is no such version.
    """
    reference = parse_version(location)
    if reference is None:
        raise UserError(
            f"{location}: expected a version; use {location.rstrip('/')}@3 or {location.rstrip('/')}@champion"
        )
    registered = Registered(reference.registry, reference.name)
    return registered, registered.version(registered.number(reference.which))


def now() -> str:
    """Return the current time, UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_version(bundle: str, location: str, note: str | None = None) -> dict[str, Any]:
    """Add a bundle to a registry as the next version of ``REGISTRY/NAME``, unless it is already registered.

    Files are published before the record of the version. Concurrent calls are safe; equal digests get one version.
    Adding a registered bundle again repairs damaged files of its version.

    Args:
        bundle: ``shipped``, the folder or URL of a bundle, or a registry version.
        location: ``REGISTRY/NAME``.
        note: Stored in the record of the version.

    Returns:
        Facts of the version; ``added`` is False if it was already registered.

    Raises:
        UserError: This is not a bundle, or its kind differs from that of the first version.
        IntegrityError: The bundle is damaged.
    """
    registered = parse_model_name(location)
    folder = bundle_folder(bundle)
    digest = verify_bundle(folder)
    kind = str(bundle_config(folder).get("format"))
    if kind not in KINDS:
        raise UserError(f"{bundle}: key 'format' in config.json is {kind!r}; a registry accepts {', '.join(KINDS)}")
    known: list[Version] = []
    for _ in range(_RACES):
        numbers = registered.versions()
        known += [registered.version(number) for number in numbers[len(known) :]]
        existing = next((version for version in known if version.digest == digest), None)
        if existing is not None:
            _upload(folder, registered.bundle(digest))
            return _facts(registered, existing) | {"added": False}
        if known and known[0].kind != kind:
            raise UserError(
                f"{registered.url}: contains bundles of kind {known[0].kind!r}, but {bundle} is of kind {kind!r}; use "
                "another name"
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
    raise UserError(
        f"{registered.url}: other processes added {_RACES} versions in the meantime; run the same command again"
    )


def add_trained(bundle: str, location: str, note: str | None = None) -> str:
    """Call :func:`add_version` at the end of a training; return ``REGISTRY/NAME@NUMBER``."""
    added = add_version(bundle, location, note)
    log(f"{added['name']}: digest {added['digest']}" + ("" if added["added"] else ", already registered"))
    return parse_model_name(location).location(int(added["name"].rpartition("@")[2]))


def _upload(folder: Path, url: str) -> dict[str, str]:
    """Publish the files of a bundle; return the SHA-256 of every published file by name.

    The digest does not cover the card and the signature: those of the first writer are kept.
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
    """Compare the files of a version with its record.

    Raises:
        IntegrityError: A file is missing or differs; names each of them.
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
    """List all models of a registry with kind, number of versions, newest version and champion."""
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
    """Return versions and champion moves of ``REGISTRY/NAME``, or the details of a version ``REGISTRY/NAME@3``.

    Raises:
        UserError: There is no such model or version.
    """
    if parse_version(location) is not None:
        registered, version = parse_version_name(location)
        url = registered.bundle(version.digest)
        evaluations = registered.evaluations(version.version)
        facts = _facts(registered, version) | {"url": url, "evaluations": evaluations}
        return facts | {"files": version.files}
    registered = parse_model_name(location)
    numbers = registered.versions()
    if not numbers:
        raise UserError(f"{registered.url}: has no versions; add one with `pngnoise registry add BUNDLE {location}`")
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
    """Copy a version to a local folder atomically. Every file is compared with the record of the version.

    Args:
        location: ``REGISTRY/NAME@3`` or ``REGISTRY/NAME@champion``.
        output: New or empty local folder.

    Raises:
        UserError: There is no such version, or the folder has other content.
        IntegrityError: The version is damaged.
    """
    registered, version = parse_version_name(location)
    target = local_path(output)
    if target is None:
        raise UserError(f"{output}: a version can only be fetched to a local folder; use a local path")
    facts = _facts(registered, version) | {"folder": str(target)}
    if target.exists() and any(target.iterdir()):
        if (target / "digest.json").is_file() and verify_bundle(target) == version.digest:
            return facts
        raise UserError(f"{target}: the folder is not empty; use a new or empty folder")
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
