"""Commands about stores of any kind and about the installation: inspect, verify, sign, schema, doctor, deploy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli.console import USER_ERROR, progress_bar, show
from flows.cli.options import Json, command
from tasks.corpus.parameters import VerifyParameters

app = App()
Location = Annotated[
    str,
    Parameter(help="Folder, URL or alias of a corpus, patch store, catalogue, prompt bank, export or model bundle."),
]


@command(app, "pngnoise inspect quickstart")
def inspect(location: Location, *, json: Json = False) -> None:
    """Show the contents of a store, from its records."""
    from tasks.corpus.inspection import inspect

    show(inspect(location), as_json=json, title=location)


@command(app, "pngnoise verify quickstart", "location")
def verify(parameters: VerifyParameters, *, json: Json = False) -> None:
    """Check every byte of a store against its digests. Exits with code 2 and names the damaged files.

    With --trusted the store must also be signed by one of these keys (`pngnoise sign`).
    """
    from tasks.corpus.signatures import verify_store
    from tasks.runtime.progress import reporter

    with progress_bar(quiet=json):
        found = verify_store(parameters, reporter("verify", "shards"))
    show(found, as_json=json, title=f"{parameters.location}: no errors")


@command(app, "pngnoise sign runs/small/bundle --key key.pem")
def sign(
    location: Location,
    *,
    key: Annotated[Path, Parameter(help="Private key, Ed25519, PEM; PNGNOISE_SIGNING_PASSWORD is its password.")],
    json: Json = False,
) -> None:
    """Check every byte of a store and sign its digest. Writes signature.json; `pngnoise verify --trusted` reads it.

    Make a key: `openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out trusted.pem`
    """
    from tasks.corpus.signatures import sign

    show(sign(location, key), as_json=json, title="Signed")


@command(app, "pngnoise schema patch-store")
def schema(
    kind: Annotated[str, Parameter(help="catalogue, patch-store, corpus, prompt-bank or export.")],
) -> None:
    """Print the JSON schema of the commit record of a store."""
    from tasks.corpus.inspection import record_schema

    show(record_schema(kind), as_json=True, title=kind)


@command(app, "pngnoise doctor")
def doctor(*, json: Json = False) -> None:
    """Check this machine and installation, with a remedy for each problem."""
    from tasks.runtime.doctor import examine

    findings, healthy = examine()
    show(findings, as_json=json, title="Doctor")
    if not healthy:
        sys.exit(USER_ERROR)


@command(app, "pngnoise deploy --file infra/prefect.yaml")
def deploy(
    *,
    file: Annotated[Path, Parameter(help="Deployments with their schedules and triggers.")] = Path(
        "infra/prefect.yaml"
    ),
    automations: Annotated[Path, Parameter(help="Automations of the server.")] = Path("infra/automations.yaml"),
    json: Json = False,
) -> None:
    """Update the Prefect server at PREFECT_API_URL to the files of infra/. Safe to rerun."""
    from pngmodel.errors import UserError

    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("PREFECT_API_URL is not set; set the address of the server, e.g. http://127.0.0.1:4200/api")
    from flows.provision import provision

    show(provision(file, automations), as_json=json, title="Provisioned")
