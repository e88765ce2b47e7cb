"""Announces registry versions without an evaluation, in case the event of their training was lost."""

from __future__ import annotations

from tasks.models.events import KINDS, TRAINED, announce_denoisers, announce_model
from tasks.models.promotion import evaluation_of
from tasks.models.registry import parse_model_name
from tasks.runtime.steps import step
from tasks.stores.model_registry import Registered, Version


def unevaluated(registered: Registered) -> list[Version]:
    """Return the versions that no stored evaluation record covers, oldest first.

    A record may be stored with another version, because one record compares several denoisers.
    """
    numbers = registered.versions()
    records = [registered.evaluation(n, digest) for n in numbers for digest in registered.evaluations(n)]
    versions = map(registered.version, numbers)
    return [v for v in versions if all(evaluation_of(record, v.digest) is None for record in records)]


def announce_unevaluated(model: str) -> list[str]:
    """Announce the versions of ``REGISTRY/NAME`` without an evaluation as trained; return their names.

    Denoisers are announced in one event, because they are compared with each other. Baselines are not announced,
    because no automation evaluates them.
    """
    registered = parse_model_name(model)
    versions = unevaluated(registered)
    names = [registered.location(version.version) for version in versions]
    kind = KINDS[versions[0].kind] if versions else "baseline"
    if kind == "baseline":
        return []
    if kind == "denoiser":
        announce_denoisers(names, [version.digest for version in versions])
    else:
        for name, version in zip(names, versions, strict=True):
            announce_model(TRAINED, kind, model=name, digest=version.digest)
    return names


task_announce_unevaluated = step("announce_unevaluated")(announce_unevaluated)
