"""`python -m infra.local up | down | status`: what `make up` and `make down` call."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import show, user_errors
from infra.local.settings import load_settings
from infra.local.stack import Stack

app = typer.Typer(
    help="The whole stack on this machine: Prefect server, S3-compatible server, workers, deployments.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table")]


@app.command()
def up(json: Json = False) -> None:
    """Start what does not run yet and deploy infra/. Call it again after a reboot, an upgrade, or the end of a part."""
    with user_errors():
        stack = Stack(load_settings(), (lambda line: None) if json else print)
        stack.up()
        found = stack.status()
    show(found, as_json=json, title="Stack")


@app.command()
def down(json: Json = False) -> None:
    """End exactly what `up` started. Database and objects stay in the stack's folder."""
    with user_errors():
        ended = Stack(load_settings()).down()
    show({"ended": ended}, as_json=json, title="Stack")


@app.command()
def status(json: Json = False) -> None:
    """Which parts run, and where."""
    with user_errors():
        found = Stack(load_settings()).status()
    show(found, as_json=json, title="Stack")


if __name__ == "__main__":
    app()
