"""The commands for whoever runs the server of a team: `pngnoise deploy`, `pngnoise metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import show, user_errors
from flows.options import Json, example

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


@commands.command(epilog=example("pngnoise metrics --port 9108"))
def metrics(
    port: Annotated[int, typer.Option(help="port to serve at")] = 9108,
    address: Annotated[str, typer.Option(help="address to serve at; 0.0.0.0: all of this machine's")] = "127.0.0.1",
) -> None:
    """Serve the figures of the newest runs (PNGNOISE_RUN_METRICS) and the depth of the queues to Prometheus."""
    with user_errors():
        from flows.exporter import serve

        print(f"http://{address}:{port}/metrics")
        serve(port, address)
