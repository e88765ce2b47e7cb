"""Prefect events that trigger other runs: a model was trained, evaluated or promoted; a corpus was published.

Events are not reliable: they are lost if the server is down. Triggered runs therefore check storage for completed work,
and the flow ``catch_up`` announces models without an evaluation again.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect.events import emit_event

from pngmodel.bundle import bundle_config
from pngmodel.errors import UserError
from tasks.models.generators import bundle_folder
from tasks.runtime.artifacts import log
from tasks.runtime.provenance import content_key

Kind = Literal["noise", "denoiser", "baseline"]
KINDS: dict[str, Kind] = {
    "pngnoise-model": "noise",
    "pngnoise-denoiser": "denoiser",
    "pngnoise-baseline": "baseline",
}
"""Kind of a model by the format of its bundle."""

TRAINED, EVALUATED, PROMOTED = "png.model.trained", "png.model.evaluated", "png.model.promoted"
PUBLISHED = "png.corpus.published"


def model_kind(model: str) -> Kind:
    """Return the kind of a bundle or of a registry version.

    Raises:
        UserError: There is no bundle, or its format is unknown.
    """
    found = bundle_config(bundle_folder(model)).get("format")
    if found not in KINDS:
        raise UserError(f"{model}: key 'format' in config.json is {found!r}; expected one of {', '.join(KINDS)}")
    return KINDS[str(found)]


def announce_model(event: str, kind: Kind, *, model: str, digest: str, **more: Any) -> None:
    """Emit an event: a model was trained, evaluated or promoted.

    Args:
        event: :data:`TRAINED`, :data:`EVALUATED` or :data:`PROMOTED`.
        kind: Label ``png.kind`` of the event's resource, on which triggers filter.
        model: URL of the bundle, or ``REGISTRY/NAME@NUMBER``; flows accept both as a model.
        digest: Digest of the bundle.
        more: Additional JSON-serialisable keys of the payload.
    """
    labels = {"prefect.resource.id": f"png.model.{digest}", "prefect.resource.name": model, "png.kind": kind}
    _emit(event, labels, {"model": model, "digest": digest, "kind": kind} | more)


def announce_denoisers(models: list[str], digests: list[str]) -> None:
    """Emit one event for denoisers that are compared with each other.

    The payload has all of them in ``denoisers``; its ``digest`` is a digest of ``digests``.
    """
    announce_model(TRAINED, "denoiser", model=models[-1], digest=content_key(digests), denoisers=models)


def announce_corpus(url: str, digest: str, **more: Any) -> None:
    """Emit an event: a corpus was published. The label ``png.series`` is the name of its folder, e.g. nightly."""
    series = (["", *url.rstrip("/").split("/")])[-2]
    labels = {"prefect.resource.id": f"png.corpus.{digest}", "prefect.resource.name": url, "png.series": series}
    _emit(PUBLISHED, labels, {"url": url, "digest": digest} | more)


def _emit(event: str, labels: dict[str, str], payload: dict[str, Any]) -> None:
    """Emit an event; only log errors, because the results of the run are already published."""
    try:
        emit_event(event=event, resource=labels, payload=payload)
    except Exception as error:
        log(f"event {event} was not emitted ({error})")
        return
    log(f"event {event}: {labels['prefect.resource.name']}, digest {payload['digest']}")
