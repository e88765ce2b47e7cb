"""The commands `pngnoise corpus ...`: what can be done with a corpus that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import progress_bar, show, show_corpus, user_errors
from flows.cli.options import Clean, Cluster, Json, Model, References, example

app = typer.Typer(
    name="corpus",
    help="Look at, verify, mend, compare and tidy corpora.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Location = Annotated[str, typer.Argument(help="folder, URL or alias of a corpus")]


@app.command(epilog=example("pngnoise corpus inspect s3://bucket/corpora/latest"))
def inspect(location: Location, json: Json = False) -> None:
    """Say what a corpus holds, from its own records."""
    with user_errors():
        from tasks.corpus.inspection import inspect as look

        found = look(location)
    show(found, as_json=json, title=location)


@app.command(epilog=example("pngnoise corpus verify corpora/a --sample 100 --cluster local"))
def verify(
    location: Location,
    sample: Annotated[int | None, typer.Option(help="only so many shards, drawn by --seed; default all")] = None,
    seed: Annotated[int, typer.Option(help="which shards are drawn")] = 0,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Check every byte against its digests; exit code 2 names what is damaged."""
    with user_errors():
        from flows.verify_corpus import VerifyParameters, verify_corpus
        from tasks.runtime.clusters import load_cluster

        parameters = VerifyParameters(corpus=location, sample=sample, seed=seed, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            found = verify_corpus(parameters)
    show(found, as_json=json, title=f"{location}: all well")


@app.command(epilog=example("pngnoise corpus repair corpora/a"))
def repair(
    location: Location,
    model: Model = None,
    references: References = None,
    clean: Clean = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Make anew what is missing or damaged, and nothing else; publish a corpus that was interrupted."""
    with user_errors():
        from flows.generate_synthetic_corpus import generate_synthetic_corpus
        from tasks.corpus.maintenance import recorded_parameters
        from tasks.runtime.clusters import load_cluster

        changes = {"model": model, "references": references, "clean": clean, "cluster": load_cluster(cluster)}
        parameters = recorded_parameters(location, **changes)
        with progress_bar(quiet=json):
            result = generate_synthetic_corpus(parameters)
    show_corpus(result, as_json=json)


@app.command(epilog=example("pngnoise corpus diff corpora/a corpora/b"))
def diff(location: Location, other: Location, json: Json = False) -> None:
    """Compare two corpora: settings, shards, samples by content, figures. Exit code 1 when they are not equal."""
    with user_errors():
        from tasks.corpus.maintenance import compare_corpora

        found = compare_corpora(location, other)
    show(found, as_json=json, title=f"{location} and {other}")
    if not found["equal"]:
        raise typer.Exit(1)


@app.command(epilog=example("pngnoise corpus gc s3://bucket/corpora --delete"))
def gc(
    location: Annotated[str, typer.Argument(help="a corpus, or a folder of corpora")],
    delete: Annotated[bool, typer.Option("--delete", help="delete what was found; default: only list it")] = False,
    json: Json = False,
) -> None:
    """List what nobody needs: files that belong to no corpus, and corpora that were begun and never published."""
    with user_errors():
        from tasks.corpus.maintenance import collect_garbage

        found = collect_garbage(location, delete=delete)
    show(found, as_json=json, title="Deleted" if delete else "Nothing was deleted; --delete does")
