"""The command `pngnoise evaluate metadata`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flows.cli.console import progress_bar, show, user_errors
from flows.cli.options import Cluster, Json, example

evaluations = typer.Typer()


@evaluations.command(
    "metadata",
    epilog=example("pngnoise evaluate metadata --references runs/sidd/patches --references runs/cc60/patches"),
)
def evaluate_metadata(
    references: Annotated[
        list[str], typer.Option(help="patch store or catalogue of real pairs of several scenes; repeatable")
    ],
    model: Annotated[str, typer.Option(help="shipped, a bundle's folder or URL")] = "shipped",
    features: Annotated[
        str, typer.Option(help="prompts: codes of the prompt blocks; all: curves and covariances too")
    ] = "prompts",
    limit: Annotated[int, typer.Option(help="at most so many pairs, evenly spread")] = 1000,
    side: Annotated[int, typer.Option(help="of larger images the middle, so many pixels wide")] = 256,
    least: Annotated[int, typer.Option(help="samples that a class needs")] = 6,
    steps: Annotated[int, typer.Option(help="training steps of every network")] = 600,
    batch: Annotated[int, typer.Option(help="samples a step")] = 32,
    hidden: Annotated[int, typer.Option(help="hidden units on prompts; decides the parameters of both networks")] = 64,
    seeds: Annotated[int, typer.Option(help="networks of each kind, each with held-out scenes of its own")] = 5,
    seed: Annotated[int, typer.Option(help="the first seed")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    output: Annotated[str | None, typer.Option(help="file for the record")] = None,
    report: Annotated[str | None, typer.Option(help="file for an HTML page with confusion matrices")] = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Train small networks to name the camera (and ISO) from prompts and from the noise itself, on held-out scenes."""
    settings = {n: v for n, v in locals().items() if n not in ("cluster", "json", "references")}
    with user_errors():
        from flows.classify_metadata import classify_metadata
        from tasks.evaluation.metadata import MetadataParameters
        from tasks.runtime.clusters import load_cluster

        parameters = MetadataParameters(**settings, references=references, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            record = classify_metadata(parameters)
    if json:
        show(record, as_json=True, title="")
        return
    _show_questions(record)


def _show_questions(record: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tasks.evaluation.metadata_report import metadata_rows

    for kind, question in record["tasks"].items():
        rows = metadata_rows(question)
        title = f"{kind}: {len(question['classes'])} classes, {len(question['skipped'])} left out; per cent"
        table = Table(*rows[0], title=title, title_justify="left", box=None)
        for row in rows:
            table.add_row(*row.values())
        Console().print(table)
