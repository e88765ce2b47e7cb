"""The command for administrators of a Prefect server: `pngnoise deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import show, user_errors
from flows.cli.options import Json, example

commands = typer.Typer()


@commands.command(epilog=example("pngnoise deploy --file infra/prefect.yaml"))
def deploy(
    file: Annotated[Path, typer.Option(help="deployments with their schedules and triggers")] = Path(
        "infra/prefect.yaml"
    ),
    automations: Annotated[Path, typer.Option(help="rules of the whole server")] = Path("infra/automations.yaml"),
    json: Json = False,
) -> None:
    """Bring the Prefect server at PREFECT_API_URL up to the files of infra/. Call it as often as you like."""
    with user_errors():
        import os

        from pngmodel.errors import UserError

        if not os.environ.get("PREFECT_API_URL"):
            raise UserError("PREFECT_API_URL is not set; say which server, e.g. http://127.0.0.1:4200/api")
        from flows.provision import provision

        found = provision(file, automations)
    show(found, as_json=json, title="Provisioned")
