"""Commands that train and run denoisers: train-denoiser, estimate-clean, submit."""

from __future__ import annotations

from cyclopts import App

from flows.cli.console import run, show
from flows.cli.options import Json, command
from tasks.denoising.parameters import EstimateParameters, SubmitParameters, TrainDenoiserParameters

app = App()


@command(
    app,
    "pngnoise train-denoiser configs/denoisers/dncnn.yaml --real runs/sidd/patches --arms png=corpora/a "
    "half=corpora/a,share=0.5 --output runs/denoisers",
    "config",
)
def train_denoiser(parameters: TrainDenoiserParameters, *, json: Json = False) -> None:
    """Train denoisers on real and synthetic pairs, one per arm and seed. Rerun the same command to resume."""
    from flows.train_denoiser import train_denoiser

    show(run(train_denoiser, parameters, quiet=json), as_json=json, title="Denoisers")


@command(app, "pngnoise estimate-clean runs/sidd/patches --denoiser nlm --output runs/sidd/unpaired", "store")
def estimate_clean(parameters: EstimateParameters, *, json: Json = False) -> None:
    """Estimate clean images from noisy ones with a denoiser, for training and references without pairs.

    Writes a patch store. If interrupted, rerun the same command to resume.
    """
    from flows.estimate_clean import estimate_clean

    result = run(estimate_clean, parameters, quiet=json)
    parts = parameters.parts
    show(result, as_json=json, title="Patch store" if parts is None else f"Part {parts} of a patch store")


@command(
    app,
    "pngnoise submit sidd runs/benchmark/catalogue --denoiser runs/denoisers/real/seed-0/bundle --output submission",
    "benchmark",
    "catalogue",
)
def submit(parameters: SubmitParameters, *, json: Json = False) -> None:
    """Denoise a benchmark without public ground truth and write the files for its server.

    Nothing is uploaded. If interrupted, rerun the same command to resume.
    """
    from flows.submit_benchmark import submit_benchmark

    record = run(submit_benchmark, parameters, quiet=json)
    show(record, as_json=json, title=f"Submission; upload the files in {parameters.output}/upload")
