"""Commands that read datasets: ingest, patches, prompts, finalise."""

from __future__ import annotations

from cyclopts import App

from flows.cli.console import run, show, show_corpus
from flows.cli.options import Json, command
from tasks.corpus.parameters import FinaliseParameters
from tasks.datasets.parameters import IngestParameters, PatchParameters
from tasks.models.parameters import BankParameters

app = App()


@command(
    app,
    "pngnoise ingest data/SIDD_Small_sRGB_Only --adapter sidd-small --output runs/sidd/catalogue",
    "source",
)
def ingest(parameters: IngestParameters, *, json: Json = False) -> None:
    """Read and verify a dataset; write its catalogue and the list of rejected pairs."""
    from flows.ingest_dataset import ingest_dataset
    from tasks.datasets.ingest import RejectedError

    try:
        result = run(ingest_dataset, parameters, quiet=json)
    except RejectedError as error:
        if json:  # the reasons, for programs; the exit code is that of an error
            show({"pairs": 0, "rejected": error.rejected}, as_json=True, title="")
        raise
    show(result, as_json=json, title="Catalogue")


@command(app, "pngnoise patches runs/sidd/catalogue --size 256 --output runs/sidd/patches", "catalogue")
def patches(parameters: PatchParameters, *, json: Json = False) -> None:
    """Cut the images of a catalogue into a sharded patch store. If interrupted, rerun the same command to resume."""
    from flows.extract_patches import extract_patches

    result = run(extract_patches, parameters, quiet=json)
    parts = parameters.parts
    show(result, as_json=json, title="Patch store" if parts is None else f"Part {parts} of a patch store")


@command(app, "pngnoise prompts runs/sidd/patches --split train --output runs/sidd/prompts", "references")
def prompts(parameters: BankParameters, *, json: Json = False) -> None:
    """Extract the prompts of all references once and store them in a prompt bank.

    `pngnoise generate --references BANK` then needs no reference images. If interrupted, rerun the same command to
    resume.
    """
    from flows.build_prompt_bank import build_prompt_bank

    show(run(build_prompt_bank, parameters, quiet=json), as_json=json, title="Prompt bank")


@command(app, "pngnoise finalise runs/sidd/patches", "store")
def finalise(parameters: FinaliseParameters, *, json: Json = False) -> None:
    """Check all shards of a patch store or corpus that was made with --parts, and publish it. Lists missing shards."""
    from flows.finalise_store import finalise_store

    result = run(finalise_store, parameters, quiet=json)
    if "metrics" in result:
        show_corpus(result, as_json=json)
    else:
        show(result, as_json=json, title="Patch store")
