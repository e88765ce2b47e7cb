"""The command line `pngnoise`. Heavy imports stand inside the commands, so that --help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import benchmark as benchmark_cli
from flows.cli import corpus as corpus_cli
from flows.cli import denoisers as denoiser_cli
from flows.cli import generation as generation_cli
from flows.cli import metadata as metadata_cli
from flows.cli import registry as registry_cli
from flows.cli import signing as signing_cli
from flows.cli import team as team_cli
from flows.cli.console import (
    USER_ERROR,
    prepare_prefect,
    progress_bar,
    show,
    show_c2st,
    show_corpus,
    show_metrics,
    user_errors,
)
from flows.cli.options import Cluster, Json, RegisterAs, example

app = typer.Typer(
    name="pngnoise",
    help="Learn real camera noise and manufacture noisy/clean training pairs from it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

app.add_typer(corpus_cli.app)
app.add_typer(registry_cli.app)


@app.command(epilog=example("pngnoise ingest data/SIDD_Small_sRGB_Only --adapter sidd-small --out runs/sidd/catalogue"))
def ingest(
    source: Annotated[
        str, typer.Argument(help="the dataset as its owners ship it: a folder, .zip or .tar, or a URL of one (s3://)")
    ],
    adapter: Annotated[
        str,
        typer.Option(
            help="sidd-medium, sidd-small, sidd-validation, sidd-benchmark, sidd-plus, polyu, nam, cc15, dnd, folders, "
            "tiff, clean, or a YAML rule file for paired folders"
        ),
    ],
    out: Annotated[str, typer.Option(help="folder or URL of the catalogue")],
    validation_scene: Annotated[
        list[str] | None, typer.Option(help="scene to keep out of training; repeatable")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="share of the pairs to keep out, whole scenes")] = 0.0,
    licence: Annotated[str | None, typer.Option(help="licence of images whose layout does not say it")] = None,
    data_range: Annotated[float | None, typer.Option(help="level of float images that stands for 1")] = None,
    max_shift: Annotated[float, typer.Option(help="pixels that noisy and clean may be apart")] = 2.0,
    max_rejected: Annotated[float, typer.Option(help="fail above this share of rejected pairs; 1: never")] = 1.0,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Read and verify a dataset, write its catalogue and the list of what was rejected."""
    with user_errors():
        from flows.ingest_dataset import IngestParameters, ingest_dataset
        from tasks.datasets.ingest import IngestSettings, RejectedError
        from tasks.runtime.clusters import load_cluster

        parameters = IngestParameters(
            source=source,
            adapter=adapter,
            output=out,
            settings=IngestSettings(
                validation_scenes=validation_scene or [],
                validation_share=validation_share,
                licence=licence,
                data_range=data_range,
                max_shift=max_shift,
                max_rejected=max_rejected,
            ),
            cluster=load_cluster(cluster),
        )
        try:
            with progress_bar(quiet=json):
                result = ingest_dataset(parameters)
        except RejectedError as error:
            if json:  # whoever parses the answer learns the reasons; the exit code is that of an error
                show({"pairs": 0, "rejected": error.rejected}, as_json=True, title="")
            raise
    show(result, as_json=json, title="Catalogue")


@app.command(epilog=example("pngnoise patches runs/sidd/catalogue --size 256 --out runs/sidd/patches"))
def patches(
    catalogue: Annotated[str, typer.Argument(help="folder or URL written by `pngnoise ingest`")],
    out: Annotated[str, typer.Option(help="folder or URL of the patch store")],
    preset: Annotated[str | None, typer.Option(help="sidd-512 (stride 384) or sidd-256 (no overlap)")] = None,
    size: Annotated[int | None, typer.Option(help="side of the square patches, pixels; default 256")] = None,
    stride: Annotated[int | None, typer.Option(help="step between patches; default: no overlap")] = None,
    shard: Annotated[int, typer.Option(help="patches per shard")] = 64,
    dtype: Annotated[str | None, typer.Option(help="only images of this dtype: uint8, uint16, float32")] = None,
    channels: Annotated[int | None, typer.Option(help="only images of so many channels")] = None,
    split: Annotated[str | None, typer.Option(help="only images of this split")] = None,
    camera: Annotated[str | None, typer.Option(help="only images of this camera")] = None,
    parts: Annotated[str | None, typer.Option(help="i/n: make part i of n, then run `pngnoise finalise`")] = None,
    cluster: Cluster = "local",
    json: Json = False,
) -> None:
    """Cut a catalogue's images into a sharded patch store. Run again to finish what was interrupted."""
    with user_errors():
        from flows.extract_patches import PatchParameters, extract_patches
        from tasks.datasets.extraction import Geometry, Selection
        from tasks.runtime.clusters import load_cluster

        parameters = PatchParameters(
            catalogue=catalogue,
            output=out,
            geometry=Geometry(preset=preset, size=size, stride=stride),
            shard=shard,
            select=Selection(dtype=dtype, channels=channels, split=split, camera=camera),
            parts=parts,
            cluster=load_cluster(cluster),
        )
        with progress_bar(quiet=json):
            result = extract_patches(parameters)
    show(result, as_json=json, title="Patch store" if parts is None else f"Part {parts} of a patch store")


@app.command(epilog=example("pngnoise finalise runs/sidd/patches"))
def finalise(
    store: Annotated[str, typer.Argument(help="folder or URL that `patches` or `generate` wrote --parts to")],
    cluster: Cluster = "local",
    json: Json = False,
) -> None:
    """Check all shards of a patch store or corpus that was made in parts, and publish it. Says which are missing."""
    with user_errors():
        from flows.finalise_store import FinaliseParameters, finalise_store
        from tasks.runtime.clusters import load_cluster

        parameters = FinaliseParameters(store=store, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            result = finalise_store(parameters)
    if "metrics" in result:
        show_corpus(result, as_json=json)
        return
    show(result, as_json=json, title="Patch store")


@app.command(epilog=example("pngnoise prompts runs/sidd/patches --split train --out runs/sidd/prompts"))
def prompts(
    references: Annotated[str, typer.Argument(help="real pairs: shipped, a patch store or a catalogue")],
    out: Annotated[str, typer.Option(help="folder or URL of the prompt bank")],
    model: Annotated[str, typer.Option(help="shipped, a bundle's folder or URL, or a baseline")] = "shipped",
    split: Annotated[str | None, typer.Option(help="only references of this split, e.g. train")] = None,
    camera: Annotated[str | None, typer.Option(help="only references of this camera")] = None,
    limit: Annotated[int | None, typer.Option(help="at most so many references, evenly spread")] = None,
    shard: Annotated[int, typer.Option(help="entries per shard")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Extract the prompts of all references once and keep them in a bank: give it to `generate --references`, which
    then needs no images of theirs. Run again to finish what was interrupted."""
    settings = {n: value for n, value in locals().items() if n not in ("out", "cluster", "json")}
    with user_errors():
        from flows.build_prompt_bank import build_prompt_bank
        from tasks.models.prompt_bank import BankParameters
        from tasks.runtime.clusters import load_cluster

        parameters = BankParameters(**settings, output=out, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            result = build_prompt_bank(parameters)
    show(result, as_json=json, title="Prompt bank")


@app.command(epilog=example("pngnoise train configs/models/small.yaml --output runs/small --device cuda --workers 8"))
def train(
    config: Annotated[str, typer.Argument(help="training configuration")] = "configs/models/tiny.yaml",
    output: Annotated[str, typer.Option(help="folder for checkpoints, logs and the bundle")] = "runs/tiny",
    store: Annotated[
        list[str] | None, typer.Option(help="patch store instead of the configuration's; repeatable")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    devices: Annotated[int, typer.Option(help="devices of this machine that share every batch")] = 1,
    nodes: Annotated[int, typer.Option(help="machines; start this command on each with torchrun")] = 1,
    workers: Annotated[int, typer.Option(help="processes that make batches ahead, for each device")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="stop resumably after so many minutes of a stage")] = None,
    register_as: RegisterAs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print the resolved configuration")] = False,
    json: Json = False,
) -> None:
    """Train a noise model (autoencoder, then P-DiT) and write its bundle. Run again to resume.

    A configuration with the key `baseline` trains another noise generator to compare with.

    `tensorboard --logdir OUTPUT` shows the curves and pictures of a training while it runs.
    """
    with user_errors():
        from flows.train_noise_model import TrainParameters, train_noise_model
        from tasks.runtime.devices import Devices, is_chief
        from tasks.training.stages import train_stages

        parameters = TrainParameters(
            config=config,
            output=output,
            stores=store or [],
            devices=Devices(device=device, count=devices, nodes=nodes, workers=workers),
            max_minutes=max_minutes,
            register_as=register_as,
        )
        if dry_run:
            show(parameters.training_config().resolved(config), as_json=True, title="")
            return
        if not is_chief():  # one of several processes of a launcher: the first one keeps the history
            train_stages(parameters.training_config(), Path(output), parameters.devices, config, max_minutes)
            return
        with progress_bar(quiet=json):
            result = train_noise_model(parameters)
    show(result, as_json=json, title="Training")


@app.command(epilog=example("pngnoise inspect quickstart"))
def inspect(
    location: Annotated[
        str, typer.Argument(help="corpus, patch store, catalogue, prompt bank, export or model bundle")
    ],
    json: Json = False,
) -> None:
    """Say what a store holds, from its own records."""
    with user_errors():
        from tasks.corpus.inspection import inspect as look

        found = look(location)
    show(found, as_json=json, title=location)


@app.command(epilog=example("pngnoise schema patch-store"))
def schema(
    kind: Annotated[str, typer.Argument(help="catalogue, patch-store, corpus, prompt-bank or export")],
) -> None:
    """Print the JSON schema of a store's commit record."""
    with user_errors():
        from tasks.corpus.inspection import record_schema

        found = record_schema(kind)
    show(found, as_json=True, title=kind)


evaluation = typer.Typer(help="Measure noise generators.", no_args_is_help=True)
app.add_typer(evaluation, name="evaluate")


@evaluation.command(
    "noise", epilog=example("pngnoise evaluate noise --references runs/sidd/patches --reference C --json")
)
def evaluate_noise(
    model: Annotated[str, typer.Option(help="shipped, a bundle's folder or URL, or a baseline")] = "shipped",
    compare: Annotated[list[str] | None, typer.Option(help="another bundle to measure beside it; repeatable")] = None,
    references: Annotated[str, typer.Option(help="real pairs: shipped, a patch store or a catalogue")] = "shipped",
    split: Annotated[str | None, typer.Option(help="only pairs of this split, e.g. validation")] = None,
    camera: Annotated[str | None, typer.Option(help="only pairs of this camera")] = None,
    reference: Annotated[
        str, typer.Option(help="A own noise, B another crop, C another image of that camera and ISO, D another camera")
    ] = "A",
    limit: Annotated[int | None, typer.Option(help="at most so many pairs, evenly spread")] = None,
    seed: Annotated[int, typer.Option(help="seed of the draws and of the choice of references")] = 0,
    baselines: Annotated[bool, typer.Option(help="measure the baselines beside it")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    output: Annotated[str | None, typer.Option(help="file for the evaluation record")] = None,
    report: Annotated[str | None, typer.Option(help="file for an HTML page with pictures")] = None,
    json: Json = False,
) -> None:
    """Figures of a generator on real pairs, beside the floor and the baselines."""
    settings = {name: value for name, value in locals().items() if name != "json"} | {"compare": compare or []}
    with user_errors():
        from flows.evaluate_noise import evaluate_noise as flow
        from tasks.evaluation.noise import EvaluateParameters

        parameters = EvaluateParameters(**settings)
        with progress_bar(quiet=json):
            record = flow(parameters)
    show_metrics(record, as_json=json)


@evaluation.command("c2st", epilog=example("pngnoise evaluate c2st --references runs/sidd/patches --seeds 3 --json"))
def evaluate_c2st(
    model: Annotated[str, typer.Option(help="shipped, a bundle's folder or URL, or a baseline")] = "shipped",
    compare: Annotated[list[str] | None, typer.Option(help="another bundle to measure beside it; repeatable")] = None,
    references: Annotated[str, typer.Option(help="real pairs: shipped, a patch store or a catalogue")] = "shipped",
    camera: Annotated[str | None, typer.Option(help="only pairs of this camera")] = None,
    reference: Annotated[str, typer.Option(help="A, B, C or D: whose noise is imitated, as in `evaluate noise`")] = "A",
    hold_out: Annotated[str, typer.Option(help="scene or image: a quarter of them; split: validation")] = "scene",
    limit: Annotated[int, typer.Option(help="at most so many pairs, evenly spread")] = 96,
    steps: Annotated[int, typer.Option(help="training steps of every classifier")] = 250,
    batch: Annotated[int, typer.Option(help="patches a step, half real and half generated")] = 32,
    average: Annotated[int, typer.Option(help="1, 2 or 4: average over n x n pixels before looking")] = 1,
    seeds: Annotated[int, typer.Option(help="classifiers per generator")] = 3,
    seed: Annotated[int, typer.Option(help="the first seed")] = 0,
    baselines: Annotated[bool, typer.Option(help="measure the baselines beside it")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    output: Annotated[str | None, typer.Option(help="file for the record")] = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Train small classifiers to tell generated from real noise: AUC on held-out scenes, .5 is best, 1 is worst."""
    settings = {name: value for name, value in locals().items() if name not in ("cluster", "json")}
    settings |= {"compare": compare or []}
    with user_errors():
        from flows.evaluate_c2st import evaluate_c2st as flow
        from tasks.evaluation.c2st import C2stParameters
        from tasks.runtime.clusters import load_cluster

        parameters = C2stParameters(**settings, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            record = flow(parameters)
    show_c2st(record, as_json=json)


@app.command(epilog=example("pngnoise doctor"))
def doctor(json: Json = False) -> None:
    """Is this machine ready? One line per check, with what to do about a problem."""
    from tasks.runtime.doctor import examine

    findings, healthy = examine()
    show(findings, as_json=json, title="Doctor")
    if not healthy:
        raise typer.Exit(USER_ERROR)


app.registered_commands += generation_cli.commands.registered_commands + denoiser_cli.commands.registered_commands
app.registered_commands += benchmark_cli.commands.registered_commands + team_cli.commands.registered_commands
app.registered_commands += signing_cli.commands.registered_commands
evaluation.registered_commands += denoiser_cli.evaluations.registered_commands
evaluation.registered_commands += metadata_cli.evaluations.registered_commands


def main() -> None:
    """Entry point of the console script."""
    prepare_prefect()
    app()
