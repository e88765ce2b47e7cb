"""Commands that evaluate: evaluate noise, c2st, metadata and denoiser; reproduce-paper."""

from __future__ import annotations

from cyclopts import App

from flows.cli.console import run, show, show_c2st, show_fidelity, show_metadata, show_metrics
from flows.cli.options import Json, command
from flows.paper.parameters import ReproduceParameters
from tasks.denoising.parameters import EvaluateDenoiserParameters
from tasks.evaluation.parameters import C2stParameters, EvaluateParameters, MetadataParameters

app = App()
evaluation = App(name="evaluate", help="Evaluate noise generators and denoisers on real pairs.")
app.command(evaluation)


@command(evaluation, "pngnoise evaluate noise --references runs/sidd/patches --reference C --json")
def noise(parameters: EvaluateParameters, *, json: Json = False) -> None:
    """Compute noise metrics of a generator on real pairs, next to the floor and the baselines."""
    from flows.evaluate_noise import evaluate_noise

    show_metrics(run(evaluate_noise, parameters, quiet=json), as_json=json)


@command(evaluation, "pngnoise evaluate c2st --references runs/sidd/patches --seeds 3 --json")
def c2st(parameters: C2stParameters, *, json: Json = False) -> None:
    """Train small classifiers to separate generated from real noise. Test AUC: 0.5 is best, 1 is worst."""
    from flows.evaluate_c2st import evaluate_c2st

    show_c2st(run(evaluate_c2st, parameters, quiet=json), as_json=json)


@command(evaluation, "pngnoise evaluate metadata --references runs/sidd/patches runs/cc60/patches")
def metadata(parameters: MetadataParameters, *, json: Json = False) -> None:
    """Train small networks to predict the camera (and ISO) from prompts and from noise, tested on held-out scenes."""
    from flows.classify_metadata import classify_metadata

    show_metadata(run(classify_metadata, parameters, quiet=json), as_json=json)


@command(
    evaluation,
    "pngnoise evaluate denoiser runs/denoisers nlm --tests sidd=runs/sidd/patches@validation",
    "denoisers",
)
def denoiser(parameters: EvaluateDenoiserParameters, *, json: Json = False) -> None:
    """Compute PSNR and SSIM of denoisers on real pairs, with spread over seeds and differences from the control."""
    from flows.evaluate_denoiser import evaluate_denoiser

    show_fidelity(run(evaluate_denoiser, parameters, quiet=json), as_json=json)


@command(
    app,
    "pngnoise reproduce-paper --budget small --real runs/sidd/patches --tests sidd=runs/sidd/patches@validation",
)
def reproduce_paper(parameters: ReproduceParameters, *, json: Json = False) -> None:
    """Make the tables of the paper on your data, next to the published values. Rerun the same command to resume."""
    from flows.reproduce_paper import reproduce_paper

    result = run(reproduce_paper, parameters, quiet=json)
    show(result["pages"] | {"index": result["index"]}, as_json=json, title="Pages")
