"""What several commands of the command line have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table")]
Cluster = Annotated[str, typer.Option(help="cluster file of configs/clusters/, or inline, or local")]
Model = Annotated[str | None, typer.Option(help="where the model lies now, if elsewhere")]
References = Annotated[str | None, typer.Option(help="where the references lie now, if elsewhere")]
Clean = Annotated[str | None, typer.Option(help="where the clean images lie now, if elsewhere")]
RegisterAs = Annotated[
    str | None, typer.Option(help="REGISTRY/NAME that what is trained becomes a version of; evaluation may follow")
]


def example(command: str) -> str:
    """The last line of a command's help."""
    return f"Example: `{command}`"
