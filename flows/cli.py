"""The command line `pngnoise`. Heavy imports stand inside the commands, so that --help is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.console import prepare_prefect, progress_bar, show, user_errors

app = typer.Typer(
    name="pngnoise",
    help="Learn real camera noise and manufacture noisy/clean training pairs from it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table")]
Cluster = Annotated[str, typer.Option(help="cluster file of configs/clusters/, or inline, or local")]


def _example(text: str) -> str:
    return f"Example: `{text}`"


@app.command(epilog=_example("pngnoise ingest data/SIDD_Small_sRGB_Only --adapter sidd-small --out runs/sidd/catalogue"))
def ingest(
    source: Annotated[str, typer.Argument(help="folder or URL of the dataset, as its owners ship it")],
    adapter: Annotated[str, typer.Option(help="sidd-small, sidd-medium, or a YAML rule file for paired folders")],
    out: Annotated[str, typer.Option(help="folder or URL of the catalogue")],
    validation_scene: Annotated[list[str] | None, typer.Option(help="scene to keep out of training; repeatable")] = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Read and verify a dataset, write its catalogue and the list of what was rejected."""
    with user_errors():
        from flows.ingest_dataset import IngestParameters, ingest_dataset
        from tasks.clusters import load_cluster

        parameters = IngestParameters(
            source=source,
            adapter=adapter,
            output=out,
            validation_scenes=validation_scene or [],
            cluster=load_cluster(cluster),
        )
        with progress_bar(quiet=json):
            result = ingest_dataset(parameters)
    show(result, as_json=json, title="Catalogue")


@app.command(epilog=_example("pngnoise patches runs/sidd/catalogue --size 256 --out runs/sidd/patches"))
def patches(
    catalogue: Annotated[str, typer.Argument(help="folder or URL written by `pngnoise ingest`")],
    out: Annotated[str, typer.Option(help="folder or URL of the patch store")],
    size: Annotated[int, typer.Option(help="side of the square patches, pixels")] = 256,
    stride: Annotated[int | None, typer.Option(help="step between patches; default: no overlap")] = None,
    shard: Annotated[int, typer.Option(help="patches per shard")] = 64,
    cluster: Cluster = "local",
    json: Json = False,
) -> None:
    """Cut a catalogue's pairs into a sharded patch store. Run again to finish what was interrupted."""
    with user_errors():
        from flows.extract_patches import PatchParameters, extract_patches
        from tasks.clusters import load_cluster

        parameters = PatchParameters(
            catalogue=catalogue, output=out, size=size, stride=stride, shard=shard, cluster=load_cluster(cluster)
        )
        with progress_bar(quiet=json):
            result = extract_patches(parameters)
    show(result, as_json=json, title="Patch store")


@app.command(epilog=_example("pngnoise train configs/models/tiny.yaml --output runs/tiny"))
def train(
    config: Annotated[str, typer.Argument(help="training configuration")] = "configs/models/tiny.yaml",
    output: Annotated[str, typer.Option(help="folder for checkpoints, logs and the bundle")] = "runs/tiny",
    store: Annotated[list[str] | None, typer.Option(help="patch store instead of the configuration's; repeatable")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    max_minutes: Annotated[float | None, typer.Option(help="stop resumably after so many minutes of a stage")] = None,
    json: Json = False,
) -> None:
    """Train a noise model (autoencoder, then P-DiT) and write its bundle. Run again to resume."""
    with user_errors():
        from flows.train_noise_model import TrainParameters, train_noise_model

        parameters = TrainParameters(
            config=config, output=output, stores=store or [], device=device, max_minutes=max_minutes
        )
        with progress_bar(quiet=json):
            result = train_noise_model(parameters)
    show(result, as_json=json, title="Training")


def main() -> None:
    """Entry point of the console script."""
    prepare_prefect()
    app()
