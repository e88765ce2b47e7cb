"""Commands that make, export and maintain corpora: quickstart, generate, materialise, export, corpus."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from flows.cli.console import run, show, show_corpus
from flows.cli.options import Json, command
from tasks.corpus.parameters import CorpusParameters, ExportParameters, MaterialiseParameters, RepairParameters

app = App()
maintenance = App(name="corpus", help="Repair, compare and clean up corpora.")
app.command(maintenance)

Location = Annotated[str, Parameter(help="Folder, URL or alias of a corpus.")]


@command(app, "pngnoise quickstart")
def quickstart(
    *,
    output: Annotated[str, Parameter(help="Folder of the corpus.")] = "./quickstart",
    json: Json = False,
) -> None:
    """Generate a corpus from the shipped model, noise and images: 32 pairs with report in about a minute."""
    generate(CorpusParameters(output=output, scale=4, shard=8), json=json)


def _show_result(result: dict[str, Any], parts: str | None, *, as_json: bool) -> None:
    if parts is None:
        show_corpus(result, as_json=as_json)
    else:
        show(result, as_json=as_json, title=f"Part {parts} of a corpus")


@command(app, "pngnoise generate --clean photos/ --references runs/sidd/patches --scale 4 --output corpora/a")
def generate(
    parameters: CorpusParameters,
    *,
    dry_run: Annotated[bool, Parameter(negative=(), help="Print counts, bytes, requests and time, and exit.")] = False,
    json: Json = False,
) -> None:
    """Generate a corpus of noisy/clean pairs.

    If interrupted, rerun the same command: it resumes and the result is byte-identical. A larger --scale adds samples.
    """
    if dry_run:
        from tasks.corpus.estimate import estimate
        from tasks.corpus.plan import plan_corpus

        show(estimate(plan_corpus(parameters)), as_json=json, title="Dry run: nothing was written")
        return
    from flows.generate_synthetic_corpus import generate_synthetic_corpus

    result = run(generate_synthetic_corpus, parameters, quiet=json)
    _show_result(result, parameters.parts, as_json=json)


@command(app, "pngnoise materialise corpora/recipe --output corpora/a --cluster local", "recipe")
def materialise(parameters: MaterialiseParameters, *, json: Json = False) -> None:
    """Make the images of a corpus of recipes; byte-identical on the same kind of device."""
    from flows.materialise_corpus import materialise_corpus

    result = run(materialise_corpus, parameters, quiet=json)
    _show_result(result, parameters.parts, as_json=json)


@command(app, "pngnoise export corpora/a --format webdataset --output s3://bucket/a", "corpus")
def export(parameters: ExportParameters, *, json: Json = False) -> None:
    """Write a corpus in a format of other training tools. If interrupted, rerun the same command to resume."""
    from flows.export_corpus import export_corpus

    show(run(export_corpus, parameters, quiet=json), as_json=json, title="Export")


@command(maintenance, "pngnoise corpus repair corpora/a", "corpus")
def repair(parameters: RepairParameters, *, json: Json = False) -> None:
    """Generate missing and damaged shards again; publish a corpus that was interrupted."""
    from flows.generate_synthetic_corpus import generate_synthetic_corpus
    from tasks.corpus.maintenance import recorded_parameters

    changes = {name: getattr(parameters, name) for name in ("model", "references", "clean", "cluster")}
    recorded = recorded_parameters(parameters.corpus, **changes)
    show_corpus(run(generate_synthetic_corpus, recorded, quiet=json), as_json=json)


@command(maintenance, "pngnoise corpus diff corpora/a corpora/b")
def diff(location: Location, other: Location, *, json: Json = False) -> None:
    """Compare two corpora: settings, shards, samples by content, metrics. Exits with code 1 if they differ."""
    from tasks.corpus.maintenance import compare_corpora

    found = compare_corpora(location, other)
    show(found, as_json=json, title=f"{location} and {other}")
    if not found["equal"]:
        sys.exit(1)


@command(maintenance, "pngnoise corpus gc s3://bucket/corpora --delete")
def gc(
    location: Annotated[str, Parameter(help="A corpus, or a folder of corpora.")],
    *,
    delete: Annotated[bool, Parameter(negative=(), help="Delete the files; default: list them only.")] = False,
    json: Json = False,
) -> None:
    """List files that belong to no corpus, and corpora that were never published."""
    from tasks.corpus.maintenance import collect_garbage

    found = collect_garbage(location, delete=delete)
    show(found, as_json=json, title="Deleted" if delete else "Nothing was deleted; --delete does")
