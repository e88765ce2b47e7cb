"""Commands that train, store and promote noise models: train, registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli.console import run, show
from flows.cli.options import Json, command
from tasks.models.parameters import CatchUpParameters, PromoteParameters
from tasks.training.parameters import TrainParameters

app = App()
registry = App(
    name="registry",
    help="Versions of models and their champion. `REGISTRY/NAME@champion` and `REGISTRY/NAME@3` refer to a bundle.",
)
app.command(registry)

Model = Annotated[str, Parameter(help="REGISTRY/NAME, e.g. models/small or s3://bucket/models/small.")]
_MOVE = ("move", "action", "version", "previous", "override", "reason", "moved")


@command(app, "pngnoise train configs/models/small.yaml --output runs/small --device cuda --workers 8", "config")
def train(
    parameters: TrainParameters,
    *,
    dry_run: Annotated[bool, Parameter(negative=(), help="Print the resolved configuration and exit.")] = False,
    json: Json = False,
) -> None:
    """Train a noise model (autoencoder, then P-DiT) and write its bundle. Rerun the same command to resume.

    A configuration with the key `baseline` trains another noise generator to compare with.

    `tensorboard --logdir OUTPUT` shows curves and pictures of the training while it runs.
    """
    from flows.train_noise_model import train_noise_model, training_config
    from tasks.runtime.devices import is_chief
    from tasks.training.stages import train_stages

    if dry_run:
        show(training_config(parameters).resolved(parameters.config), as_json=True, title="")
    elif not is_chief():  # one of several processes of torchrun: the first one records the run
        config, output = training_config(parameters), Path(parameters.output)
        train_stages(config, output, parameters.placement, parameters.config, parameters.max_minutes)
    else:
        show(run(train_noise_model, parameters, quiet=json), as_json=json, title="Training")


@command(registry, "pngnoise registry add runs/small/bundle models/small")
def add(
    bundle: Annotated[str, Parameter(help="shipped, or the folder or URL of a bundle.")],
    model: Model,
    *,
    note: Annotated[str | None, Parameter(help="Note in the record of the version.")] = None,
    json: Json = False,
) -> None:
    """Add a bundle as the next version, unless it is a version already. The champion does not change."""
    from tasks.models.registry import add_version

    found = add_version(bundle, model, note)
    show(found, as_json=json, title="Added" if found["added"] else "Exists already")


@command(registry, "pngnoise registry list s3://bucket/models", name="list")
def list_models(
    registry: Annotated[str, Parameter(help="Folder or URL of the registry.")],
    *,
    json: Json = False,
) -> None:
    """List all models with their newest version and champion."""
    from tasks.models.registry import list_models

    found = list_models(registry)
    rows = {m["name"]: {k: v for k, v in m.items() if k != "name"} for m in found}
    show({"models": found} if json else rows, as_json=json, title=registry)


@command(registry, "pngnoise registry show models/small", name="show")
def show_model(
    model: Annotated[str, Parameter(help="REGISTRY/NAME, or one version: REGISTRY/NAME@3.")],
    *,
    json: Json = False,
) -> None:
    """Show all versions of a model and the history of its champion; or files and evaluations of one version."""
    from tasks.models.registry import show_model

    found = show_model(model)
    if not json and "moves" in found:
        found = {"name": found["name"], "champion": found["champion"]} | {
            "versions": [{k: v[k] for k in ("name", "since", "digest", "note")} for v in found["versions"]],
            "moves": [{k: m[k] for k in _MOVE} for m in found["moves"]],
        }
    show(found, as_json=json, title=model)


@command(
    registry,
    "pngnoise registry promote models/small@3 --record evaluation.json --rules configs/promotion/noise.yaml",
    "version",
)
def promote(parameters: PromoteParameters, *, json: Json = False) -> None:
    """Make a version the champion if its evaluation passes all thresholds, or if an override reason is given."""
    from flows.promote_model import promote_model

    show(run(promote_model, parameters, quiet=json), as_json=json, title="Champion")


@command(registry, 'pngnoise registry rollback models/small --reason "colour cast on night shots"')
def rollback(
    model: Model,
    *,
    reason: Annotated[str, Parameter(help="Reason for the rollback; recorded.")],
    to: Annotated[int | None, Parameter(help="A former champion; default: the previous one.")] = None,
    json: Json = False,
) -> None:
    """Make a former champion the champion again."""
    from tasks.models.promotion import roll_back

    show(roll_back(model, reason, to), as_json=json, title="Champion")


@command(registry, "pngnoise registry fetch s3://bucket/models/small@champion --output bundle")
def fetch(
    version: Annotated[str, Parameter(help="REGISTRY/NAME@NUMBER or REGISTRY/NAME@champion.")],
    *,
    output: Annotated[str, Parameter(help="Local folder of the bundle.")],
    json: Json = False,
) -> None:
    """Copy a version to a local folder and verify it."""
    from tasks.models.registry import fetch_version

    show(fetch_version(version, output), as_json=json, title="Fetched")


@command(registry, "pngnoise registry catch-up models/small models/denoiser", "models")
def catch_up(parameters: CatchUpParameters, *, json: Json = False) -> None:
    """Announce registered versions that have no evaluation again, so that the server evaluates them."""
    from flows.catch_up import catch_up

    show(run(catch_up, parameters, quiet=json), as_json=json, title="Announced")
