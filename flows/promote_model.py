"""Flow: make a version of a registry the champion, if its evaluation passes all thresholds."""

from __future__ import annotations

from typing import Any

from flows.pipeline import pipeline, tail
from tasks.models.events import PROMOTED, announce_model, model_kind
from tasks.models.parameters import PromoteParameters
from tasks.models.promotion import findings_table, task_promote
from tasks.models.registry import parse_version_name
from tasks.reports.markdown import plain
from tasks.runtime.artifacts import log, publish_markdown


@pipeline("promote_model", PromoteParameters, lambda p: f"promote {tail(p.version)}")
def promote_model(parameters: PromoteParameters) -> dict[str, Any]:
    """Promote the version; fails with the metrics and limits if a threshold is not passed. Returns the promotion."""
    kind, version = model_kind(parameters.version), parse_version_name(parameters.version)[1].version
    move = task_promote(parameters)
    if move["version"] == version:
        log(f"{parameters.version}: digest {move['digest']}, record {move['record']}, was version {move['previous']}")
        announce_model(PROMOTED, kind, model=parameters.version, digest=move["digest"], previous=move["previous"])
    else:
        log(f"{parameters.version}: already promoted with this record; the champion is version {move['version']}")
    title = f"# Champion is version {move['version']}"
    publish_markdown("promotion", lambda: f"{title}\n\n{plain(move['reason'])}\n\n{findings_table(move)}")
    return move
