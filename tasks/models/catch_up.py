"""Versions of a registry that no evaluation knows."""

from __future__ import annotations

from tasks.models.events import KINDS, TRAINED, announce_denoisers, announce_model
from tasks.models.promotion import about
from tasks.models.registry import named
from tasks.runtime.steps import step
from tasks.stores.model_registry import Registered, Version


def unevaluated(registered: Registered) -> list[Version]:
    """Versions of which no stored evaluation record says anything, oldest first.

    A record may be stored with another version: of several denoisers that are compared one is the candidate.
    """
    numbers = registered.versions()
    records = [registered.evaluation(n, digest) for n in numbers for digest in registered.evaluations(n)]
    versions = map(registered.version, numbers)
    return [v for v in versions if all(about(record, v.digest) is None for record in records)]


def tell_again(model: str) -> list[str]:
    """Announce the unevaluated versions of ``REGISTRY/NAME`` as trained; returns what flows call them.

    Denoisers are told together, since they are to be compared. Of baselines nobody waits for an evaluation.
    """
    registered = named(model)
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


task_tell_again = step("tell_again")(tell_again)
