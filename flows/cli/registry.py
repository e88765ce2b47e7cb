"""The commands `pngnoise registry ...`: versions of models, and which of them is the champion."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import progress_bar, show, user_errors
from flows.cli.options import Json, example

app = typer.Typer(
    name="registry",
    help="Keep versions of models and their champion. `REGISTRY/NAME@champion` and `@3` then stand for a bundle.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Model = Annotated[str, typer.Argument(help="REGISTRY/NAME, e.g. models/small or s3://bucket/models/small")]
Version = Annotated[str, typer.Argument(help="REGISTRY/NAME@NUMBER or REGISTRY/NAME@champion")]


@app.command(epilog=example("pngnoise registry add runs/small/bundle models/small"))
def add(
    bundle: Annotated[str, typer.Argument(help="shipped, a bundle's folder or URL")],
    model: Model,
    note: Annotated[str | None, typer.Option(help="kept in the version's record")] = None,
    json: Json = False,
) -> None:
    """Add a bundle as the next version, or find it there. Nothing moves the champion but `promote`."""
    with user_errors():
        from tasks.models.registry import add_version

        found = add_version(bundle, model, note)
    show(found, as_json=json, title="Added" if found["added"] else "Was there already")


@app.command("list", epilog=example("pngnoise registry list s3://bucket/models"))
def list_(
    registry: Annotated[str, typer.Argument(help="folder or URL of the registry")],
    json: Json = False,
) -> None:
    """Every model with its newest version and its champion."""
    with user_errors():
        from tasks.models.registry import list_models

        found = list_models(registry)
    rows = {m["name"]: {k: v for k, v in m.items() if k != "name"} for m in found}
    show({"models": found} if json else rows, as_json=json, title=registry)


@app.command("show", epilog=example("pngnoise registry show models/small"))
def show_(
    model: Annotated[str, typer.Argument(help="REGISTRY/NAME, or a version of it: REGISTRY/NAME@3")],
    json: Json = False,
) -> None:
    """All versions of a model and every move of its champion; or files and evaluations of one version."""
    with user_errors():
        from tasks.models.registry import show_model

        found = show_model(model)
    if not json and "moves" in found:
        told = ("move", "action", "version", "previous", "override", "reason", "moved")
        found = {"name": found["name"], "champion": found["champion"]} | {
            "versions": [{k: v[k] for k in ("name", "since", "digest", "note")} for v in found["versions"]],
            "moves": [{k: m[k] for k in told} for m in found["moves"]],
        }
    show(found, as_json=json, title=model)


@app.command(
    epilog=example(
        "pngnoise registry promote models/small@3 --record evaluation.json --rules configs/promotion/noise.yaml"
    )
)
def promote(
    version: Version,
    record: Annotated[str, typer.Option(help="file or URL of its evaluation record (--output of `evaluate noise`)")],
    rules: Annotated[str, typer.Option(help="the gate: a YAML file of configs/promotion/")],
    reason: Annotated[str, typer.Option(help="why it moves; recorded")] = "the gate passed",
    override: Annotated[str | None, typer.Option(help="why it moves although the gate fails; recorded")] = None,
    json: Json = False,
) -> None:
    """Make a version the champion if its evaluation passes the gate. Exit code 2 names figures and limits."""
    settings = {name: value for name, value in locals().items() if name != "json"}
    with user_errors():
        from flows.promote_model import promote_model
        from tasks.models.promotion import PromoteParameters

        parameters = PromoteParameters(**settings)
        with progress_bar(quiet=json):
            move = promote_model(parameters)
    show(move, as_json=json, title="Champion")


@app.command(epilog=example('pngnoise registry rollback models/small --reason "colour cast on night shots"'))
def rollback(
    model: Model,
    reason: Annotated[str, typer.Option(help="why; recorded")],
    to: Annotated[int | None, typer.Option(help="a version that was champion; default: the one before")] = None,
    json: Json = False,
) -> None:
    """Make the version that was champion before the champion again."""
    with user_errors():
        from tasks.models.promotion import roll_back

        move = roll_back(model, reason, to)
    show(move, as_json=json, title="Champion")


@app.command(epilog=example("pngnoise registry fetch s3://bucket/models/small@champion --out bundle"))
def fetch(
    version: Version,
    out: Annotated[str, typer.Option(help="local folder of the bundle")],
    json: Json = False,
) -> None:
    """Copy a version to a local folder and verify it."""
    with user_errors():
        from tasks.models.registry import fetch_version

        found = fetch_version(version, out)
    show(found, as_json=json, title="Fetched")
