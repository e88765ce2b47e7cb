"""The commands about whether something is what it should be: `pngnoise verify`, `pngnoise sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import show, user_errors
from flows.cli.options import Json, example

commands = typer.Typer()
Location = Annotated[str, typer.Argument(help="corpus, patch store, catalogue, prompt bank, export or model bundle")]


@commands.command(epilog=example("pngnoise verify quickstart"))
def verify(
    location: Location,
    trusted: Annotated[
        list[Path] | None, typer.Option(help="public key (PEM) of somebody who may have signed it; repeatable")
    ] = None,
    json: Json = False,
) -> None:
    """Check every byte of a store against its digests; exit code 2 names what is damaged.

    With --trusted it has to be signed by one of these keys, too (pngnoise sign).
    """
    with user_errors():
        from tasks.corpus.inspection import verify as check
        from tasks.corpus.signatures import verify_signed

        found = verify_signed(location, trusted) if trusted else check(location)
    show(found, as_json=json, title=f"{location}: all well")


@commands.command(epilog=example("pngnoise sign runs/small/bundle --key key.pem"))
def sign(
    location: Location,
    key: Annotated[
        Path, typer.Option(help="private key, Ed25519, PEM; its password, if any: PNGNOISE_SIGNING_PASSWORD")
    ],
    json: Json = False,
) -> None:
    """Check every byte of a store and sign its digest: signature.json beside it. Others ask for it by verify --trusted.

    A key: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out trusted.pem
    """
    with user_errors():
        from tasks.corpus.signatures import sign as signed

        found = signed(location, key)
    show(found, as_json=json, title="Signed")
