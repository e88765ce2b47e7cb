"""Commands that apply a denoiser: `pngnoise estimate-clean` and `pngnoise submit ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import progress_bar, show, user_errors
from flows.cli.options import Cluster, Json, example

commands = typer.Typer()

Denoiser = Annotated[str, typer.Option(help="nlm (non-local means), or a denoiser's bundle")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]


@commands.command(
    name="estimate-clean",
    epilog=example("pngnoise estimate-clean runs/sidd/patches --denoiser nlm --out runs/sidd/unpaired"),
)
def estimate_clean(
    store: Annotated[str, typer.Argument(help="patch store; of its images only the noisy ones are read")],
    out: Annotated[str, typer.Option(help="folder or URL of the new patch store")],
    denoiser: Denoiser = "nlm",
    parts: Annotated[str | None, typer.Option(help="i/n: make part i of n, then run `pngnoise finalise`")] = None,
    device: Device = "cpu",
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Estimate the clean images of noisy ones by a denoiser: a patch store for training and references without pairs.

    Run again to finish what was interrupted.
    """
    with user_errors():
        from flows.estimate_clean import estimate_clean as flow
        from tasks.denoising.unpaired import EstimateParameters
        from tasks.runtime.clusters import load_cluster

        parameters = EstimateParameters(
            store=store, denoiser=denoiser, output=out, parts=parts, device=device, cluster=load_cluster(cluster)
        )
        with progress_bar(quiet=json):
            result = flow(parameters)
    show(result, as_json=json, title="Patch store" if parts is None else f"Part {parts} of a patch store")


@commands.command(
    epilog=example(
        "pngnoise submit sidd runs/benchmark/catalogue --denoiser runs/denoisers/real/seed-0/bundle --out sub"
    )
)
def submit(
    benchmark: Annotated[str, typer.Argument(help="sidd or dnd")],
    catalogue: Annotated[str, typer.Argument(help="catalogue of `pngnoise ingest --adapter sidd-benchmark` or dnd")],
    denoiser: Denoiser,
    out: Annotated[str, typer.Option(help="local folder; OUT/upload holds the files for the server")],
    form: Annotated[str, typer.Option(help="mat; of sidd also kaggle, a CSV file")] = "mat",
    method: Annotated[str | None, typer.Option(help="sidd: name of the method; default the denoiser's")] = None,
    authors: Annotated[str, typer.Option(help="sidd: who made it")] = "",
    paper_title: Annotated[str, typer.Option(help="sidd: title of the paper")] = "",
    venue: Annotated[str, typer.Option(help="sidd: where it appeared")] = "",
    device: Device = "cpu",
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Denoise a benchmark without public ground truth, and write the files that its server takes.

    Run again to finish what was interrupted. Nothing is uploaded.
    """
    settings = {n: v for n, v in locals().items() if n not in ("out", "cluster", "json")}
    with user_errors():
        from flows.submit_benchmark import submit_benchmark
        from tasks.denoising.submissions import SubmitParameters
        from tasks.runtime.clusters import load_cluster

        parameters = SubmitParameters(**settings, output=out, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            record = submit_benchmark(parameters)
    show(record, as_json=json, title=f"Submission, upload what is in {out}/upload")
