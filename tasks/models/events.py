"""Events that other runs begin upon: a model was trained, evaluated, promoted; a corpus was published.

An event is a hint and no record: it is lost when the server is down at that moment, and nobody learns of it. So
whatever an event starts finds out by itself what is done already, and `catch_up` tells again of models that nobody
evaluated.
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
"""What a model is for, by the format of its bundle."""

TRAINED, EVALUATED, PROMOTED = "png.model.trained", "png.model.evaluated", "png.model.promoted"
PUBLISHED = "png.corpus.published"


def model_kind(model: str) -> Kind:
    """What a bundle, or a version of a registry, is for.

    Raises:
        UserError: there is none, or it is of a format that is not known.
    """
    found = bundle_config(bundle_folder(model)).get("format")
    if found not in KINDS:
        raise UserError(f"{model}: config.json has format {found!r}, known are {', '.join(KINDS)}")
    return KINDS[str(found)]


def announce_model(event: str, kind: Kind, *, model: str, digest: str, **more: Any) -> None:
    """Tell that a model was trained, evaluated or promoted.

    Args:
        event: :data:`TRAINED`, :data:`EVALUATED` or :data:`PROMOTED`.
        kind: label ``png.kind`` of the event's resource; triggers choose by it.
        model: bundle's URI, or ``REGISTRY/NAME@NUMBER``; what can be given to a flow as a model.
        digest: of the bundle.
        more: further keys of the payload, JSON-able.
    """
    labels = {"prefect.resource.id": f"png.model.{digest}", "prefect.resource.name": model, "png.kind": kind}
    _emit(event, labels, {"model": model, "digest": digest, "kind": kind} | more)


def announce_denoisers(models: list[str], digests: list[str]) -> None:
    """Tell of denoisers that were trained to be compared, by one event: ``denoisers`` of its payload are all of
    them, ``digest`` is that of their digests."""
    announce_model(TRAINED, "denoiser", model=models[-1], digest=content_key(digests), denoisers=models)


def announce_corpus(url: str, digest: str, **more: Any) -> None:
    """Tell that a corpus was published. The label ``png.series`` is the folder it lies in: nightly, champion, ..."""
    series = (["", *url.rstrip("/").split("/")])[-2]
    labels = {"prefect.resource.id": f"png.corpus.{digest}", "prefect.resource.name": url, "png.series": series}
    _emit(PUBLISHED, labels, {"url": url, "digest": digest} | more)


def _emit(event: str, labels: dict[str, str], payload: dict[str, Any]) -> None:
    """The run's work is done and published when this is called, so that a failure here must not undo it."""
    try:
        emit_event(event=event, resource=labels, payload=payload)
    except Exception as error:
        log(f"event {event} was not sent ({error})")
        return
    log(f"event {event}: {labels['prefect.resource.name']}, digest {payload['digest']}")
