"""`python -m infra.local up | down | status`, called by `make up`, `make down` and `make status`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import show, user_errors
from infra.local.settings import load_settings
from infra.local.stack import Stack

app = typer.Typer(
    help="Local stack: Prefect server, S3-compatible server, workers, deployments.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table")]


@app.command()
def up(json: Json = False) -> None:
    """Start all processes that are not running and deploy infra/. Run again after a reboot, upgrade or crash."""
    with user_errors():
        stack = Stack(load_settings(), (lambda line: None) if json else print)
        stack.up()
        found = stack.status()
    show(found, as_json=json, title="Stack")


@app.command()
def down(json: Json = False) -> None:
    """Stop the processes started by `up`. Database and objects are kept in the stack folder."""
    with user_errors():
        ended = Stack(load_settings()).down()
    show({"ended": ended}, as_json=json, title="Stack")


@app.command()
def status(json: Json = False) -> None:
    """Show the processes and addresses of the stack."""
    with user_errors():
        found = Stack(load_settings()).status()
    show(found, as_json=json, title="Stack")


if __name__ == "__main__":
    app()
