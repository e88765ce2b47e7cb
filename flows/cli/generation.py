"""The commands that make corpora: `pngnoise generate`, `materialise`, `export` and `quickstart`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import progress_bar, show, show_corpus, user_errors
from flows.cli.options import Clean, Cluster, Json, Model, References, example

commands = typer.Typer()


@commands.command(
    epilog=example("pngnoise generate --clean photos/ --references runs/sidd/patches --scale 4 --output corpora/a")
)
def generate(
    output: Annotated[str, typer.Option(help="folder or URL of the corpus")],
    model: Annotated[str, typer.Option(help="shipped, a bundle's folder or URL, or a baseline")] = "shipped",
    references: Annotated[
        str, typer.Option(help="real noise: shipped, a patch store, catalogue or prompt bank")
    ] = "shipped",
    split: Annotated[str | None, typer.Option(help="only references of this split, e.g. train")] = None,
    clean: Annotated[
        str, typer.Option(help="clean images: shipped, a folder, a Zarr array, a patch store or a catalogue")
    ] = "shipped",
    clean_split: Annotated[str | None, typer.Option(help="only clean images of this split of their store")] = None,
    clean_licence: Annotated[str | None, typer.Option(help="licence of images whose source does not say it")] = None,
    min_jpeg_quality: Annotated[int | None, typer.Option(help="leave out JPEG files below this, 1 to 100")] = None,
    scale: Annotated[int, typer.Option(help="independent noisy draws per clean patch")] = 1,
    mode: Annotated[
        str, typer.Option(help="pairs; noisy: clean images only named; recipe: sources and seeds")
    ] = "pairs",
    seed: Annotated[int, typer.Option(help="another seed is another corpus")] = 0,
    crop: Annotated[int, typer.Option(help="side of the clean patches, pixels")] = 256,
    stride: Annotated[int | None, typer.Option(help="step between patches of a grid; default: no overlap")] = None,
    crops: Annotated[str, typer.Option(help="grid, random (--crops-per-image) or centre")] = "grid",
    crops_per_image: Annotated[int, typer.Option(help="windows per image where they are random")] = 8,
    min_clean_std: Annotated[float, typer.Option(help="leave out flatter patches: std, of full scale")] = 0.0,
    reference_policy: Annotated[
        str, typer.Option(help="uniform: any reference; own: the image's own; camera: the image's; cameras: all alike")
    ] = "uniform",
    weight: Annotated[
        list[str] | None, typer.Option(help="CAMERA=WEIGHT; repeatable; cameras not named are not used")
    ] = None,
    shard: Annotated[int, typer.Option(help="pairs per shard")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    gate: Annotated[str, typer.Option(help="default, or a YAML file of configs/quality_gates/")] = "default",
    override_gate: Annotated[
        str | None, typer.Option(help="publish although the gate fails, for this reason, which is recorded")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="a name beside the output that then means it, e.g. latest")] = None,
    parts: Annotated[str | None, typer.Option(help="i/n: make part i of n, then run `pngnoise finalise`")] = None,
    check: Annotated[str, typer.Option(help="how made shards are looked at: checksums, or sizes")] = "checksums",
    cluster: Cluster = "inline",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print counts, bytes, requests and time")] = False,
    json: Json = False,
) -> None:
    """Manufacture a corpus of noisy/clean pairs. Run again to resume, or with a larger --scale to add draws."""
    settings = {n: value for n, value in locals().items() if n not in ("cluster", "dry_run", "json", "weight")}
    with user_errors():
        from tasks.corpus.plan import CorpusParameters
        from tasks.runtime.clusters import load_cluster

        parameters = CorpusParameters(**settings, weights=_weights(weight), cluster=load_cluster(cluster))
        if dry_run:
            from tasks.corpus.estimate import estimate
            from tasks.corpus.plan import plan_corpus

            show(estimate(plan_corpus(parameters)), as_json=json, title="Dry run: nothing was written")
            return
        from flows.generate_synthetic_corpus import generate_synthetic_corpus

        with progress_bar(quiet=json):
            result = generate_synthetic_corpus(parameters)
    if parts is not None:
        show(result, as_json=json, title=f"Part {parts} of a corpus")
        return
    show_corpus(result, as_json=json)


def _weights(given: list[str] | None) -> dict[str, float] | None:
    """CAMERA=WEIGHT, several of them, as a mapping."""
    from pngmodel.errors import UserError

    found = {}
    for item in given or ():
        camera, _, weight = item.rpartition("=")
        try:
            found[camera] = float(weight)
        except ValueError:
            raise UserError(f"--weight is {item!r}; give CAMERA=WEIGHT, e.g. GP=2") from None
    return found or None


@commands.command(epilog=example("pngnoise materialise corpora/recipe --output corpora/a --cluster local"))
def materialise(
    recipe: Annotated[str, typer.Argument(help="folder, URL or alias of a corpus of recipes (generate --mode recipe)")],
    output: Annotated[str, typer.Option(help="folder or URL of the corpus")],
    mode: Annotated[str, typer.Option(help="pairs, or noisy: clean images only named")] = "pairs",
    model: Model = None,
    references: References = None,
    clean: Clean = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: the recipe's")] = None,
    parts: Annotated[str | None, typer.Option(help="i/n: make part i of n, then run `pngnoise finalise`")] = None,
    override_gate: Annotated[
        str | None, typer.Option(help="publish although the gate fails, for this reason, which is recorded")
    ] = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Make the images of a corpus of recipes; on the same kind of device bit by bit those that were meant."""
    changes = {n: value for n, value in locals().items() if n not in ("recipe", "cluster", "json")}
    with user_errors():
        from flows.materialise_corpus import MaterialiseParameters, materialise_corpus
        from tasks.runtime.clusters import load_cluster

        parameters = MaterialiseParameters(recipe=recipe, **changes, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            result = materialise_corpus(parameters)
    if parts is not None:
        show(result, as_json=json, title=f"Part {parts} of a corpus")
        return
    show_corpus(result, as_json=json)


@commands.command(epilog=example("pngnoise export corpora/a --format webdataset --output s3://bucket/a"))
def export(
    corpus: Annotated[str, typer.Argument(help="folder or URL of a published corpus")],
    format: Annotated[str, typer.Option(help="webdataset, folders, lmdb or parquet (Hugging Face datasets)")],
    output: Annotated[str, typer.Option(help="folder or URL of the export; lmdb: a local folder")],
    layout: Annotated[
        str | None, typer.Option(help="folders: basicsr, nafnet or restormer; lmdb: basicsr or nafnet")
    ] = None,
    codec: Annotated[str, typer.Option(help="png, or tiff (floats); lossless")] = "png",
    rejected: Annotated[
        bool, typer.Option("--with-rejected", help="also the pairs that the quality gate rejected")
    ] = False,
    pairs_per_file: Annotated[
        int | None, typer.Option(help="pairs per tar, table or task; default: a shard of the corpus")
    ] = None,
    cluster: Cluster = "inline",
    json: Json = False,
) -> None:
    """Write a corpus as the files that other people's trainers read. Run again to resume."""
    settings = {name: value for name, value in locals().items() if name not in ("rejected", "cluster", "json")}
    with user_errors():
        from flows.export_corpus import export_corpus
        from tasks.corpus.exports.export import ExportParameters
        from tasks.runtime.clusters import load_cluster

        parameters = ExportParameters(**settings, accepted_only=not rejected, cluster=load_cluster(cluster))
        with progress_bar(quiet=json):
            result = export_corpus(parameters)
    show(result, as_json=json, title="Export")


@commands.command(epilog=example("pngnoise quickstart"))
def quickstart(
    output: Annotated[str, typer.Option(help="folder of the corpus")] = "./quickstart",
    json: Json = False,
) -> None:
    """The main job on shipped model, noise and images: 32 pairs with report in about a minute."""
    generate(output=output, scale=4, shard=8, json=json)
