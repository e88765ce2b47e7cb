"""`python -m infra.local up | down | status`, called by `make up`, `make down` and `make status`."""

from __future__ import annotations

from cyclopts import App

from flows.cli.console import show
from flows.cli.options import Json, command
from infra.local.settings import load_settings
from infra.local.stack import Stack

app = App(
    name="python -m infra.local",
    help="Local stack: Prefect server, S3-compatible server, workers, deployments.",
)


@command(app, "python -m infra.local up")
def up(*, json: Json = False) -> None:
    """Start all parts of the stack that do not run, and deploy infra/. Safe to rerun, e.g. after a reboot."""
    stack = Stack(load_settings(), (lambda line: None) if json else print)
    stack.up()
    show(stack.status(), as_json=json, title="Stack")


@command(app, "python -m infra.local down")
def down(*, json: Json = False) -> None:
    """Stop exactly the processes that `up` started. Database and objects stay in the folder of the stack."""
    show({"ended": Stack(load_settings()).down()}, as_json=json, title="Stack")


@command(app, "python -m infra.local status")
def status(*, json: Json = False) -> None:
    """Show which parts run, and where."""
    show(Stack(load_settings()).status(), as_json=json, title="Stack")


if __name__ == "__main__":
    app()
